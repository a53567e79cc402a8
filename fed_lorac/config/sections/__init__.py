"""The settings, a file a section: its keys, with their defaults, and the tables of its choices. Knows keys, types
and ranges; not files, cameras or tensors.

Every value is a scalar, because Flower's run-config carries no other: a list is text with commas. A method's own
options are fields of its class; those here are of choices that have no class elsewhere. Choices that contradict one
another are refused in `compatibility`.
"""

from fed_lorac.config.sections.adapter import AdapterConfig
from fed_lorac.config.sections.batch_norm import BatchNormConfig, LocalStatistics
from fed_lorac.config.sections.codec import CodecConfig, Topk
from fed_lorac.config.sections.data import CamerasData, CifarData, DataConfig, FolderData, TrafficSigns
from fed_lorac.config.sections.fleet import Daily, Dirichlet, FleetConfig, Front, LimitedDevices, Walk
from fed_lorac.config.sections.local import LocalConfig
from fed_lorac.config.sections.model import CifarResNet, ModelConfig, Pretrain
from fed_lorac.config.sections.run import FleetEngine, RayWorkers, RunConfig, Sampled
from fed_lorac.config.sections.strategy import StrategyConfig

__all__ = [
    "AdapterConfig",
    "BatchNormConfig",
    "CamerasData",
    "CifarData",
    "CifarResNet",
    "CodecConfig",
    "Daily",
    "DataConfig",
    "Dirichlet",
    "FleetConfig",
    "FleetEngine",
    "FolderData",
    "Front",
    "LimitedDevices",
    "LocalConfig",
    "LocalStatistics",
    "ModelConfig",
    "Pretrain",
    "RayWorkers",
    "RunConfig",
    "Sampled",
    "StrategyConfig",
    "Topk",
    "TrafficSigns",
    "Walk",
]
