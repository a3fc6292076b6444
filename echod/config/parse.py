"""From the text of a config file to a Config and its warnings, or to every mistake in it.

Owns the order of the steps: YAML, the open networks, the values, the keys together. It reads no file. Invariant:
`parse_config` raises only ConfigError, with every mistake at its line.
"""

from pydantic import ValidationError

from echod.config import fields, lint
from echod.config.diagnostics import in_order
from echod.config.document import read
from echod.config.explain import explain
from echod.config.schema import MODELS, Config, StatusConfig
from echod.errors import ConfigError, Mistake


def parse_config(data: bytes) -> tuple[Config, tuple[Mistake, ...]]:
    """Read the bytes of a config file. Returns the config, and warnings of what is legal but unreasonable.

    Raises ConfigError, and nothing else, with every mistake ordered by line and column.
    """
    document = read(data)
    mistakes = list(lint.find_open(document))
    try:
        config = Config.model_validate(document.value, context=fields.FROM_FILE)
    except ValidationError as error:
        mistakes += explain(error, document, MODELS)
    else:
        mistakes += lint.find_clash(config, document)
    if mistakes:
        raise ConfigError(in_order(mistakes))
    return config, in_order(lint.find_unreasonable(config, document))


def find_status_directory(data: bytes) -> str:
    """Return `status.directory` of a config file, if it can be read, despite mistakes elsewhere in the file.

    `echod status` must find a running echod also while its config is being edited.
    """
    try:
        section = read(data).value.get("status")
        return StatusConfig.model_validate(section).directory if section else StatusConfig().directory
    except (ConfigError, ValidationError):
        return StatusConfig().directory
