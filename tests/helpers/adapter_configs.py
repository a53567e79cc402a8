"""An adapter's settings from one bag of them, whether they stand in view or in a table."""

from fed_lorac.config import AdapterConfig

__all__ = ["adapter_config"]


def adapter_config(method: str = "lora-c", **settings: object) -> AdapterConfig:
    """The section of a method, of whose settings those are set that it has."""
    takes = AdapterConfig(method).settings("method")
    given = {key: value for key, value in settings.items() if key in takes}
    in_view = {key: value for key, value in given.items() if key in AdapterConfig.rules()}
    table = {key: value for key, value in given.items() if key not in in_view}
    return AdapterConfig(method, **in_view, tables={method: table} if table else {})  # type: ignore[arg-type, dict-item]
