"""Reports about config files and `-c`."""

from reported import Case

CASES = [
    Case(
        "an override without a value",
        lambda folder: ["run", "-c", "run.rounds"],
        exit_code=2,
        says=("An override is key=value, such as run.rounds=20; got 'run.rounds'.",),
    ),
]
