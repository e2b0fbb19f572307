"""The model of a service: functions, routes, stages, settings. Rollouts and homes read only this.

Frozen and comparable, so that "unchanged" is `==`. Possible secrets (environment, headers, bodies) are kept out of
`repr`, so that it reaches no log and no traceback. Only `load.py` makes them from a file;
`hitless.documents` writes and reads them as JSON, with the environment in clear text.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import msgspec

from hitless.documents import Discreet
from hitless.errors import ServiceFileError
from hitless.service.event_sources import Authorizer, HttpApi, MappedRoute, Preflight, Route, Schedule
from hitless.service.strategy import AllAtOnce, Strategy

DEFAULT_TIMEOUT_S = 6
"""Serverless Framework's default, not Lambda's (3 s)."""

ENDED_RUNTIMES = ("python2.7", "python3.6", "python3.7", "python3.8", "nodejs14.x", "nodejs16.x", "nodejs18.x")
"""Lambda accepts no new function with one of these."""
PROGRAM = "bootstrap"
PROGRAM_RUNTIMES = ("provided.al2", "provided.al2023")
"""The function is the program PROGRAM, which asks Lambda's Runtime API for its events."""

NODE_RUNTIMES = ("nodejs20.x", "nodejs22.x", "nodejs24.x")
"""Node.js runs the handler, by a bootstrap of hitless's own that asks the Runtime API."""

DEFAULT_MEMORY_MB, DEFAULT_STORAGE_MB = 1024, 512
DEFAULT_WORKERS = 2
DEFAULT_TARGET_PERCENT = 70
"""Share of a function's workers that may be busy before more are started."""

DEFAULT_REGION = "us-east-1"
DEFAULT_STAGE = "dev"
DEFAULT_READY_TIMEOUT_S = 10
"""Lambda gives the init phase 10 s."""

DEFAULT_GUARD_S = 30
DEFAULT_PREVIEW_PORT = 8090
LETS_ENCRYPT = "https://acme-v02.api.letsencrypt.org/directory"
LETS_ENCRYPT_STAGING = "https://acme-staging-v02.api.letsencrypt.org/directory"
"""Its certificates are not trusted; its rate limits are high (letsencrypt.org/docs/staging-environment)."""

PROTECTION = ("branch", "home", "approval", "rehearsal", "test", "verify", "required_checks", "notify")
"""The settings of a stage that protect it from the pipeline, and who is notified."""


class Home(StrEnum):
    """Where a stage runs."""

    ENGINE = "engine"
    AWS = "aws"


class Approval(StrEnum):
    """Whether a person must approve before the pipeline ships."""

    NONE = "none"
    MANUAL = "manual"


class AccessLog(StrEnum):
    """Which of a stage's requests are in its access log. `SAMPLED`: up to `SAMPLED_PER_S` a second, then a sample."""

    OFF = "off"
    SAMPLED = "sampled"
    ALL = "all"


SAMPLED_PER_S = 20


class Nat(StrEnum):
    """NAT gateways of a stage's network on AWS."""

    SINGLE = "single"
    PER_AZ = "per-az"
    NONE = "none"


class Network(msgspec.Struct, frozen=True):
    """A stage's network on AWS: its `own`, `none`, that of another core `stack`, or an existing `vpc`."""

    kind: str = "own"
    stack: str = ""
    vpc: str = ""
    subnets: tuple[str, ...] = ()

    @property
    def own(self) -> bool:
        return self.kind == "own"


class Throttle(msgspec.Struct, frozen=True):
    """How many requests a second API Gateway lets through to each method, and at once. An account has these limits."""

    rate_per_s: float = 10_000
    burst: int = 5_000


class Function(Discreet, frozen=True):
    """One function of the service. `handler` is `src/handlers.zones`: module path, dot, attribute."""

    HIDDEN = ("environment",)
    name: str
    handler: str
    runtime: str = "python3.11"
    architecture: str = "x86_64"
    memory_mb: int = DEFAULT_MEMORY_MB
    storage_mb: int | None = None
    """The room of /tmp; None for Lambda's 512 MB."""
    timeout_s: int = DEFAULT_TIMEOUT_S
    environment: tuple[tuple[str, str], ...] = ()
    routes: tuple[Route, ...] = ()
    package_patterns: tuple[str, ...] = ()
    workers: int = DEFAULT_WORKERS
    """The fewest that run; 0 lets an idle function sleep."""
    max_workers: int | None = None
    """The most that run under load; None for a fixed number."""
    target_percent: int = DEFAULT_TARGET_PERCENT
    reserved_concurrency: int | None = None
    provisioned_concurrency: int = 0
    max_provisioned: int | None = None
    """Up to how many environments AWS keeps ready under load; None for a fixed number."""
    provisioned_target_percent: int = DEFAULT_TARGET_PERCENT
    description: str = ""
    http_api: HttpApi | None = None
    """The HTTP API's settings; None if all routes belong to a REST API."""
    preflights: tuple[Preflight, ...] = ()
    guarded: tuple[tuple[Route, Authorizer], ...] = ()
    authorizer: bool = False
    """Whether it is one, so that it has a pool without routes too."""
    binary_media_types: tuple[str, ...] = ()
    """The REST API's; empty for a function without routes of that API."""
    mapped: tuple[MappedRoute, ...] = ()
    """REST routes that are no proxy integrations."""
    module: str = ""
    """The folder that is the root of its package, with requirements of its own; "" for the service's."""
    artifact: str = ""
    """The zip that is its package instead of the folder's files; "" if there is none."""
    import_per_worker: bool = False
    """Whether each worker imports the handler itself, instead of being forked after the import."""
    schedules: tuple[Schedule, ...] = ()

    @property
    def is_python(self) -> bool:
        return self.runtime.startswith("python")

    @property
    def only_http_api(self) -> bool:
        """Whether it has routes, and all of them are an HTTP API's."""
        return self.http_api is not None and self.http_api.routes == self.routes


CHECKS = Function("hitless-checks", "tokens.check", timeout_s=10, workers=1, max_workers=4, authorizer=True)
"""hitless's own function, `hitless.checks`: it verifies tokens."""


def with_pools(functions: Iterable[Function]) -> tuple[Function, ...]:
    """The functions that have workers: those with routes, authorizers, and CHECKS if a route needs it."""
    served = tuple(one for one in functions if one.routes or one.authorizer)
    asked = {authorizer.function for one in served for _, authorizer in one.guarded}
    return (*served, CHECKS) if CHECKS.name in asked else served


class SmokeRequest(Discreet, frozen=True):
    """A request that a candidate must answer with `status` before it gets traffic. `path` may carry a query."""

    HIDDEN = ("headers", "body")
    method: str
    path: str
    headers: tuple[tuple[str, str], ...] = ()
    body: str | None = None
    status: int = 200


ALARM_DEVIATIONS = 2.0
"""Standard deviations of the interval in which alarms judge a share: about 2 % of the alarms may be chance."""
ALARM_FLOOR_MS = 5.0
"""A p99 that exceeds the live release's by less than this is no alarm, whatever the ratio."""


class AlarmSettings(msgspec.Struct, frozen=True):
    """Limits for a candidate's own traffic beyond which it is rolled back, judged from `minimum_requests` on.

    `p99_relative_percent` is the candidate's p99 as a share of the live release's in the same window; `guard_s` is how
    long the alarms still watch a release that got all traffic at once. `also` names CloudWatch alarms of the user,
    which are also watched on AWS.
    """

    error_rate_percent: int | float = 1
    minimum_requests: int = 20
    p99_ms: int | float | None = None
    p99_relative_percent: int | float | None = None
    guard_s: int = DEFAULT_GUARD_S
    also: tuple[str, ...] = ()


class Hooks(msgspec.Struct, frozen=True):
    """Functions of the service that a rollout calls before (`pre_traffic`) and after (`post_traffic`) it moves traffic,
    in the form of CodeDeploy's lifecycle event hooks.
    """

    pre_traffic: str | None = None
    post_traffic: str | None = None


class RehearsalSettings(msgspec.Struct, frozen=True):
    """A rehearsal's length and load: seconds side by side, seconds of the shift, the least requests per second."""

    beside_s: int | float = 4.0
    shift_s: int | float = 6.0
    rate_per_s: int | float = 100.0


class StickyBy(StrEnum):
    """How clients are told apart."""

    ADDRESS = "address"
    HEADER = "header"
    COOKIE = "cookie"


class Sticky(msgspec.Struct, frozen=True):
    """A client, identified by its address or by the header or cookie `name`, gets one release throughout a rollout."""

    by: StickyBy
    name: str = ""

    def __str__(self) -> str:
        return f"{self.by}:{self.name}" if self.name else str(self.by)


class NotifyBy(StrEnum):
    """How somebody is notified of a pipeline's run."""

    SLACK = "slack"
    WEBHOOK = "webhook"
    COMMAND = "command"


class Notify(Discreet, frozen=True):
    """Who is notified: a URL for Slack's messages, one for runs as JSON, or a command. May be a secret."""

    HIDDEN = ("target",)
    by: NotifyBy
    target: str


class AcmeSettings(msgspec.Struct, frozen=True):
    """A certificate authority that issues by ACME, and the e-mail address that it may write to, or ""."""

    email: str = ""
    directory: str = LETS_ENCRYPT
    staging: bool = False

    @property
    def url(self) -> str:
        """The directory that is asked."""
        return LETS_ENCRYPT_STAGING if self.staging else self.directory


class TlsSettings(msgspec.Struct, frozen=True):
    """Files of a certificate's chain and its key, in PEM, or `acme`, by which hitless gets them. `redirect`: the
    address that sends HTTP clients to HTTPS; `challenges`: the address of another ACME client, which gets their
    requests for `/.well-known/acme-challenge/`.
    """

    certificate: str = ""
    key: str = ""
    redirect: tuple[str, int] | None = None
    challenges: tuple[str, int] | None = None
    hsts_s: int = 63_072_000
    acme: AcmeSettings | None = None


class StageSettings(msgspec.Struct, frozen=True):
    """One stage under `custom.hitless.stages`. `host` has no brackets; port 0 means a free one."""

    name: str
    branch: str
    home: Home = Home.ENGINE
    host: str = "127.0.0.1"
    port: int = 8080
    strategy: Strategy = AllAtOnce()
    approval: Approval = Approval.NONE
    rehearsal: RehearsalSettings | None = None
    test: bool = True
    """Whether the pipeline runs the tests before it ships."""
    verify: bool = True
    """Whether it sends the smoke requests to the live release at the end."""
    shield: bool = True
    nat: Nat = Nat.SINGLE
    network: Network = Network()
    throttle: Throttle | None = None
    domain: str | None = None
    base_path: str = ""
    """`/orders`: the first segment of the paths that the stage has at its domain."""
    smoke: tuple[SmokeRequest, ...] = ()
    alarms: AlarmSettings = AlarmSettings()
    hooks: Hooks = Hooks()
    sticky: Sticky | None = None
    idempotent: tuple[Route, ...] = ()
    """Routes that may be run twice, whatever their method: the same for all stages of a service."""
    notify: tuple[Notify, ...] = ()
    access_log: AccessLog = AccessLog.SAMPLED
    access_log_query: bool = True
    trace_requests: bool = False
    release_header: bool = True
    ready_timeout_s: int = DEFAULT_READY_TIMEOUT_S
    tls: TlsSettings | None = None
    required_checks: bool = False
    """Whether the stage's branch accepts only commits that passed their tests on another branch."""


class PreviewSettings(msgspec.Struct, frozen=True):
    """Previews of branches that feed no stage: temporary stages at one listener, with hosts of `domain`.

    On an engine that several services share, the listeners are its own, and an empty `domain` is `preview.` and that of
    `from_stage`.
    At most `most` at a time; each has the configuration of `from_stage` and ends `expires_h` hours after its last push.
    `automatic`: at every push, not only when the push asks for one.
    """

    from_stage: str
    host: str = "127.0.0.1"
    port: int = DEFAULT_PREVIEW_PORT
    domain: str = ""
    most: int = 5
    expires_h: int = 72
    workers: int = 1
    automatic: bool = True


class BuildSettings(msgspec.Struct, frozen=True):
    """Limits of the pipeline's builds, with CodeBuild's names where they exist. Output beyond its limit is lost."""

    timeout_in_minutes: int = 10
    memory_mb: int = 4096
    output_mb: int = 16


class WsgiApp(msgspec.Struct, frozen=True):
    """The WSGI application that handlers of the plugin serverless-wsgi run: `api/app.app`. Bodies of these MIME types
    are text besides the usual ones.
    """

    app: str
    text_mime_types: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Service:
    """A whole serverless.yml, read for one stage.

    `notices` are sentences, `serverless.yml:12: functions.api.layers: …`, about keys that have an effect only on AWS.
    `package_patterns` are the service's own; a function's follow them.
    """

    name: str
    folder: Path
    file: Path
    stage: str
    region: str
    stages: tuple[StageSettings, ...]
    functions: tuple[Function, ...]
    package_patterns: tuple[str, ...] = ()
    memory_mb: int | None = None
    """MiB for all workers of the service together; None leaves it to the engine."""
    total_workers: int | None = None
    cpu_weight: int | None = None
    previews: PreviewSettings | None = None
    builds: BuildSettings = field(default_factory=BuildSettings)
    wsgi: WsgiApp | None = None
    notices: tuple[str, ...] = ()
    refusal: ServiceFileError | None = field(default=None, compare=False)
    """Why the engine does not serve it; irrelevant for a stage on AWS."""

    @property
    def settings(self) -> StageSettings:
        """The settings of the stage that the file was read for; loading ensures that it exists."""
        return next(stage for stage in self.stages if stage.name == self.stage)

    def function(self, name: str) -> Function | None:
        """The function of that name, or None."""
        return next((function for function in self.functions if function.name == name), None)
