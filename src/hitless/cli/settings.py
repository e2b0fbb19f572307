"""What a daemon is told at its start: the service and the addresses of its stages. Kept in the data folder."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass

from hitless.engine.folders import Folders
from hitless.errors import EngineError
from hitless.service.listen import DEFAULT_HOST, FIRST_PORT
from hitless.service.model import Service

SPARE_POOLS = 64


@dataclass(frozen=True, slots=True)
class Address:
    """Where a stage listens. A `movable` one takes a free port where its own is taken: nobody asked for that port."""

    stage: str
    host: str
    port: int
    movable: bool = False


@dataclass(frozen=True, slots=True)
class Settings:
    """`addresses` are in the file's order."""

    service: str
    addresses: tuple[Address, ...]
    functions: int

    @classmethod
    def of(cls, service: Service) -> Settings:
        """Default ports of stages that are not the one asked for are movable."""
        addresses = tuple(
            Address(
                stage.name,
                stage.host,
                stage.port,
                movable=stage.name != service.stage and (stage.host, stage.port) == (DEFAULT_HOST, FIRST_PORT + index),
            )
            for index, stage in enumerate(service.stages)
        )
        return cls(service.name, addresses, len(service.functions))

    @classmethod
    def read(cls, folders: Folders) -> Settings:
        """Raises EngineError where the file is missing or damaged."""
        try:
            document = json.loads(folders.settings_file.read_text())
            addresses = tuple(Address(**address) for address in document["addresses"])
            return cls(str(document["service"]), addresses, int(document["functions"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise EngineError(
                f"{folders.settings_file} cannot be read: {error!r}", hint="run `hitless up` in the service's folder"
            ) from error

    def write(self, folders: Folders) -> None:
        document = asdict(self)
        temporary = folders.settings_file.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps(document))
        temporary.replace(folders.settings_file)

    @property
    def pools(self) -> int:
        """Backends that the gateway declares: live, candidate and draining release of every stage, and as many
        spare.
        """
        return SPARE_POOLS + 3 * self.functions * len(self.addresses)
