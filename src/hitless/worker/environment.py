"""The handler's environment: Lambda's variables, an import path without hitless, and the trace id of each request.

Only a few variables of the daemon's environment are inherited. hitless's packages stay loaded for the worker, but a
handler cannot import them: a handler that needs `httptools` gets the one of its artifact, or the ImportError that it
would get on Lambda.
"""

from __future__ import annotations

import collections
import os
import secrets
import sys
import time
from collections import abc
from collections.abc import Iterable, Mapping, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import Distribution, DistributionFinder, MetadataPathFinder
from types import ModuleType

from hitless.worker.compiled import LIBRARY
from hitless.worker.spec import PoolSpec

ACCOUNT_ID = "000000000000"
INHERITED = ("PATH", "HOME", "TMPDIR", "LANG")
HIDDEN = ("hitless", "httptools", "setproctitle", LIBRARY)


def lambda_environment(spec: PoolSpec, inherited: Mapping[str, str]) -> dict[str, str]:
    """The handler's whole environment: Lambda's variables, overridden by the service file's."""
    runtime = spec.runtime if spec.node else f"python{sys.version_info.major}.{sys.version_info.minor}"
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LANG": "en_US.UTF-8",
        **{name: inherited[name] for name in INHERITED if name in inherited},
        "TZ": ":UTC",
        "_HANDLER": spec.handler,
        "AWS_REGION": spec.region,
        "AWS_DEFAULT_REGION": spec.region,
        "AWS_EXECUTION_ENV": f"AWS_Lambda_{runtime}",
        "AWS_LAMBDA_FUNCTION_NAME": spec.function_name,
        "AWS_LAMBDA_FUNCTION_VERSION": str(spec.release),
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(spec.memory_mb),
        "AWS_LAMBDA_INITIALIZATION_TYPE": "provisioned-concurrency",
        "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{spec.function_name}",
        "AWS_LAMBDA_LOG_STREAM_NAME": log_stream_name(spec),
        "AWS_XRAY_CONTEXT_MISSING": "LOG_ERROR",
        "LAMBDA_TASK_ROOT": spec.task_root,
        "LAMBDA_RUNTIME_DIR": "/var/runtime",
        **({"NODE_PATH": spec.task_root} if spec.node else {}),
        "HITLESS_STAGE": spec.stage,
        **({"HITLESS_COMMIT": spec.commit} if spec.commit else {}),
        **spec.environment,
    }


def log_stream_name(spec: PoolSpec) -> str:
    """A new stream name in Lambda's form: `2026/11/24/[3]<32 hex digits>`."""
    return f"{time.strftime('%Y/%m/%d', time.gmtime())}/[{spec.release}]{secrets.token_hex(16)}"


def enter_environment(spec: PoolSpec, libraries: Mapping[str, str], own_paths: Sequence[str]) -> None:
    """Make this process the function's: environment, time zone, working folder, import path.

    `libraries` maps the top-level names that Lambda's runtime ships (boto3 …) to their folders; `own_paths` are the
    entries of `sys.path` that hitless was imported from.
    """
    environment = lambda_environment(spec, dict(os.environ))
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    os.umask(0o022)
    os.chdir(spec.task_root)
    extra = [os.path.join(spec.task_root, entry) for entry in environment.get("PYTHONPATH", "").split(":") if entry]
    sys.path[:] = [spec.task_root, *extra, *(entry for entry in sys.path if entry not in own_paths)]
    sys.meta_path.append(LibraryFinder(libraries))
    sys.argv[:] = [""]
    restore_old_names(spec.runtime)
    hide(HIDDEN)


def restore_old_names(runtime: str) -> None:
    """Put the abstract classes back into `collections` if the function declares a Python that has them there.

    Python 3.10 removed `collections.Mapping` and the like. Services of that time, and the versions of libraries that
    they pin, still use them.
    """
    if runtime.startswith("python") and int(runtime.rpartition(".")[2]) < 10:
        for name in abc.__all__:
            if not hasattr(collections, name):
                setattr(collections, name, getattr(abc, name))


def hide(names: Iterable[str]) -> list[ModuleType]:
    """Hide these packages' modules from `import`; code that has imported them keeps them."""
    doomed = [name for name in sys.modules if name.partition(".")[0] in names]
    hidden = [sys.modules.pop(name) for name in doomed]
    _KEPT.extend(hidden)
    return hidden


_KEPT: list[ModuleType] = []


class LibraryFinder(DistributionFinder):
    """Finds the listed libraries of Lambda's runtime by name, and nothing else in their folders."""

    def __init__(self, libraries: Mapping[str, str]) -> None:
        self._libraries = dict(libraries)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """A listed top-level module; submodules are found by their package's own path."""
        folder = self._libraries.get(fullname)
        return PathFinder.find_spec(fullname, [folder], target) if folder and path is None else None

    def find_distributions(
        self,
        context: DistributionFinder.Context = DistributionFinder.Context(),  # noqa: B008 - the base class's signature
    ) -> Iterable[Distribution]:
        """Metadata of the listed libraries, for `importlib.metadata.version("boto3")`."""
        for name, folder in self._libraries.items():
            if context.name in (None, name):
                yield from MetadataPathFinder.find_distributions(DistributionFinder.Context(name=name, path=[folder]))
