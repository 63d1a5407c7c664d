"""``python -m gcrl_gym.cli``."""

from gcrl_gym.cli import main

main()
