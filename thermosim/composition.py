"""Composed configurations for every subcommand: keys and types checked, mistakes in one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from thermosim.errors import InputError
from thermosim.resources import config_directory

Schema = TypeVar("Schema")


def register(schemas: Mapping[str, type]) -> None:
    """Make dataclasses known to Hydra under the names that a root config's defaults list gives them."""
    from hydra.core.config_store import ConfigStore

    for name, schema in schemas.items():
        ConfigStore.instance().store(name=name, node=schema)


def compose(root: str, overrides: Sequence[str] = ()) -> DictConfig:
    """The root config `configs/<root>.yaml` with overrides, as the command line composes it.

    Raises
    ------
    InputError : unknown key or group, wrong type, an override that cannot be read.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException

    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(config_directory()), version_base="1.3", job_name="thermosim"):
            return hydra_compose(root, overrides=list(overrides))
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise InputError(composition_message(error)) from error


def typed(settings: DictConfig, schema: type[Schema]) -> tuple[Schema, dict[str, Any]]:
    """A composed config as its dataclass, and the same as plain values for reports.

    A directory that the command line did not choose (Hydra knows it only in a job) becomes ".".

    Raises
    ------
    InputError : wrong type, unknown key, or a required key without a value.
    """
    try:
        merged = OmegaConf.merge(OmegaConf.structured(schema), settings)
        if "output" in merged and OmegaConf.is_missing(merged.output, "directory"):
            merged.output.directory = "."
        missing = sorted(str(key) for key in OmegaConf.missing_keys(merged))
        if missing:
            raise InputError(f"no value is given for {', '.join(missing)}; set it as {missing[0]}=...")
        plain = cast(dict[str, Any], OmegaConf.to_container(merged, resolve=True))
        return cast(Schema, OmegaConf.to_object(merged)), plain
    except OmegaConfBaseException as error:
        raise InputError(composition_message(error)) from error


def settings_from(values: Mapping[str, Any]) -> DictConfig:
    """Plain values as settings, such as a part of those of another subcommand."""
    return OmegaConf.create(dict(values))


def composition_message(error: BaseException) -> str:
    """What Hydra or OmegaConf found wrong, in one line that names the key."""
    causes: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in causes:
        causes.append(current)
        current = current.__cause__ or current.__context__
    omega = [c for c in causes if isinstance(c, OmegaConfBaseException) and c.msg]
    if omega:
        deepest = omega[-1]
        text = str(deepest.msg).partition("\n")[0]
        key = str(deepest.full_key or "")
        text = text if not key or key in text else f"{key}: {text}"
        first = "" if error is deepest else str(error).partition("\n")[0].rstrip(".")
        text = f"{text}; a new entry is added with + before the key" if "not in struct" in text else text
        return f"{first} ({text})" if first and first not in text and text not in first else text
    text = str(error).split("Config search path:")[0].split("See https://hydra.cc")[0]
    override = getattr(error, "override", None)
    text = f"{override!r} cannot be read as key=value: {text}" if override else text
    text = " ".join(text.split()).replace("In 'config': Could", "could")
    return text or f"the settings cannot be composed ({type(error).__name__})"
