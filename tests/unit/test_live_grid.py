"""Laws of a grid whose replies come as they come: what a camera raised is told, what a radio loses is not."""

import logging
from collections.abc import Iterable
from threading import Event
from typing import cast

import pytest
from cameras import reply
from flwr.app import Error, Message
from flwr.serverapp import Grid

from fed_lorac.grid.live import LiveGrid
from fed_lorac.wire.refusals import DROPPED_OUT


class Failing:
    """Of Flower's grid what is asked here: every message is answered with an error, all at once."""

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        return ["" for _ in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        reasons = (DROPPED_OUT, "ValueError: no images", DROPPED_OUT)
        return [reply(camera, error=Error(1, reason)) for camera, reason in enumerate(reasons)]


def test_what_a_camera_raised_is_logged_and_that_it_dropped_out_is_not(caplog: pytest.LogCaptureFixture) -> None:
    grid = LiveGrid(cast(Grid, Failing()), Event())
    with caplog.at_level(logging.ERROR):
        assert len(list(grid.send_and_receive([reply(0, error=Error(1, ""))], timeout=5))) == 3
    assert [record.getMessage() for record in caplog.records] == ["A camera raised ValueError: no images"]
