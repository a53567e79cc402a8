"""The config: sim_configs and Flower's run-config to frozen dataclasses, each value checked. Says no tensor."""

from fed_lorac.config.load import Overrides, Source, load_config, shipped_configs
from fed_lorac.config.local import LocalConfig
from fed_lorac.config.resumed import check_unchanged, resumed_config
from fed_lorac.config.sections import (
    AdapterConfig,
    BatchNormConfig,
    CodecConfig,
    DataConfig,
    FleetConfig,
    ModelConfig,
    RayConfig,
    RunConfig,
    StrategyConfig,
)
from fed_lorac.config.tables import (
    CifarData,
    CifarResNet,
    Daily,
    Dirichlet,
    FleetEngine,
    FlowerEngine,
    FolderData,
    Front,
    LocalStatistics,
    Pretrain,
    Topk,
    Walk,
)
from fed_lorac.config.whole import Config

__all__ = [
    "AdapterConfig",
    "BatchNormConfig",
    "CifarData",
    "CifarResNet",
    "CodecConfig",
    "Config",
    "Daily",
    "DataConfig",
    "Dirichlet",
    "FleetConfig",
    "FleetEngine",
    "FlowerEngine",
    "FolderData",
    "Front",
    "LocalConfig",
    "LocalStatistics",
    "ModelConfig",
    "Overrides",
    "Pretrain",
    "RayConfig",
    "RunConfig",
    "Source",
    "StrategyConfig",
    "Topk",
    "Walk",
    "check_unchanged",
    "load_config",
    "resumed_config",
    "shipped_configs",
]
