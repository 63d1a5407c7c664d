"""Ways in which files and arrays are damaged, for the tests of what is refused."""


def put(index, value):
    """A change that writes one value."""

    def change(array):
        array = array.copy()
        array[index] = value
        return array

    return change


def cut(path):
    """Leave the first half of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


FOREIGN = {
    "missing": (lambda path: path.unlink(), "does not exist"),
    "html": (lambda path: path.write_text("<!DOCTYPE html>"), "is a web page"),
    "lfs": (lambda path: path.write_text("version https://git-lfs.."), "is a Git LFS pointer"),
    "text": (lambda path: path.write_text("hello"), "is something that begins with b'hello', not"),
    "empty": (lambda path: path.write_bytes(b""), "is an empty file, not .*; download it again"),
    "cut": (cut, "is damaged or incomplete"),
}
"""What stands where a data file should, and what the error says of it."""
