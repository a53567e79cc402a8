"""Laws of somebody else's parts in other processes: workers on Ray and Flower's, which find them, or say which is
missing where."""

import sys
from pathlib import Path

import pytest
from interrupted import TENSORS
from own_parts import settings_of_parts, write_package

from fed_lorac.config import load_config
from fed_lorac.errors import RunError
from fed_lorac.reporting.watch import Watch
from fed_lorac.simulation.engines import run


@pytest.mark.slow
def test_workers_on_ray_find_them_and_say_what_one_process_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_package(tmp_path, "parts_for_ray")
    monkeypatch.chdir(tmp_path)  # as a user's project is worked in
    settings = settings_of_parts("parts_for_ray")
    run(load_config(None, settings), tmp_path / "one", Watch())
    run(load_config(None, {**settings, "run.workers": 2}), tmp_path / "two", Watch())
    for name in (*TENSORS, "cameras.jsonl"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


@pytest.mark.slow
def test_one_that_is_missing_on_a_worker_is_named_with_the_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_package(tmp_path / "here_alone", "parts_of_the_driver")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "here_alone")])
    settings = {**settings_of_parts("parts_of_the_driver"), "run.workers": 2}
    with pytest.raises(RunError, match=r"Node .*'parts_of_the_driver\.parts:\w+' cannot be on .*every machine"):
        run(load_config(None, settings), tmp_path / "run", Watch())
