"""What a class or camera may be called, and which names look the same. Knows text; not folders or images.

Names go into results, checkpoints and onto the terminal, so they are text of one line. A file system knows bytes only:
it may hold names in other encodings, and é as one letter or as e with an accent (Unicode's normal forms C and D).
"""

import os
import unicodedata
from collections.abc import Iterable

from fed_lorac.errors import DataError

__all__ = ["check_distinct", "class_name", "in_form_c", "look_of", "one_line_name"]


def in_form_c(name: str) -> str:
    """The name in normal form C, whichever form a copy has left it in."""
    return unicodedata.normalize("NFC", name)


def class_name(name: str, folder: object) -> str:
    """The name of the class whose folder, in `folder`, has this name.

    Raises:
        DataError: it is not UTF-8, or has a line break or another control character.
    """
    if not one_line_name(name):
        raise DataError(
            f"A class must have a name of one line in UTF-8; {folder} has a folder called "
            f"${repr(os.fsencode(name))[1:]} (as bash writes it). Rename it; `convmv` mends names in other encodings."
        )
    return in_form_c(name)


def one_line_name(name: str) -> bool:
    """Whether a name can be written in UTF-8 on one line."""
    return not any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in name)


def check_distinct(names: Iterable[str], whose: object) -> None:
    """Raise `DataError` where two names look the same; `whose` they are, for the message."""
    looks = dict[str, str]()
    for name in names:
        if twin := looks.get(look := look_of(name)):
            raise DataError(
                f"Every class and camera must have a name of its own; {whose} has {twin!r} and {name!r}, which look "
                "the same (written in another Unicode form, or with other blanks). Merge or rename them."
            )
        looks[look] = name


def look_of(name: str) -> str:
    """What is seen of a name: its words."""
    return " ".join(in_form_c(name).split())
