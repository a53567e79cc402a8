"""[codec]: how numbers are encoded for the radio."""

from dataclasses import dataclass, replace
from typing import ClassVar

from fed_lorac import registry
from fed_lorac.config.section import Section, When
from fed_lorac.runtime.settings import setting

__all__ = ["CodecConfig", "Topk"]


@dataclass(frozen=True)
class Topk:
    """[codec.topk]: only the largest values of each tensor are sent."""

    share: float = setting(0.05, "share of each tensor's values that is sent", least=0.001, most=1)


@dataclass(frozen=True)
class CodecConfig(Section):
    """How numbers are encoded for the radio."""

    section: ClassVar[str] = "codec"
    choices: ClassVar = dict.fromkeys(("up", "down"), replace(registry.CODECS, declared={"topk": Topk}))
    under: ClassVar = {
        "error_feedback": When("up", lambda up: up != "fp32", "a codec that loses something"),
        "entropy_coding": When("up", lambda up: up != "fp32", "another codec than fp32"),
    }
    up: str = setting(
        "fp32",
        "how numbers are encoded on the way from camera to server",
        choices=registry.CODECS.names,
        outside=registry.CODECS.is_outside,
    )
    error_feedback: bool = setting(False, "what the codec lost of a camera's frame is added to its next one")
    entropy_coding: bool = setting(False, "payloads are entropy-coded, up and down, if that makes them smaller")
    down: str = setting(
        "fp32",
        "how numbers are encoded on the way from server to camera",
        choices=registry.CODECS.names,
        outside=registry.CODECS.is_outside,
    )
