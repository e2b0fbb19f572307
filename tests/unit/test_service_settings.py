"""custom.hitless: defaults, each setting, each mistake."""

from __future__ import annotations

import json
import re

import pytest

from hitless.errors import ServiceFileError
from hitless.service.event_sources import Route
from hitless.service.load import parse_yaml
from hitless.service.model import (
    AccessLog,
    AcmeSettings,
    AlarmSettings,
    Approval,
    BuildSettings,
    Home,
    Hooks,
    Nat,
    Network,
    PreviewSettings,
    RehearsalSettings,
    StageSettings,
    Sticky,
    StickyBy,
    Throttle,
    TlsSettings,
)
from hitless.service.settings import PREVIEWS, STAGE, ServiceSettings, Workers, read_settings
from hitless.service.strategy import Canary

pytestmark = pytest.mark.unit


def settings(hitless: str, *, stage: str = "dev") -> ServiceSettings:
    return read_settings(parse_yaml(f"custom:\n  hitless: {hitless}", "f.yml"), stage)


def stage(text: str) -> StageSettings:
    return settings(f"{{stages: {{dev: {text}}}}}").stages[0]


def fault(hitless: str, name: str = "dev") -> ServiceFileError:
    with pytest.raises(ServiceFileError) as caught:
        settings(hitless, stage=name)
    return caught.value


@pytest.mark.parametrize("text", ["a: 1", "custom: {x: 1}", "custom: {hitless: }", "custom: {hitless: {}}"])
def test_without_settings_there_is_one_stage_with_the_defaults(text: str) -> None:
    found = read_settings(parse_yaml(text, "f.yml"), "dev")
    assert found == ServiceSettings(workers=Workers(2), stages=(StageSettings("dev", "dev"),))
    assert (found.stages[0].host, found.stages[0].port) == ("127.0.0.1", 8080)


def test_stages_listen_on_ports_in_the_order_of_the_file() -> None:
    found = settings("{stages: {dev: , staging: {}, prod: {listen: ':80'}, last: {}}}").stages
    assert [(s.name, s.branch, s.host, s.port) for s in found] == [
        ("dev", "dev", "127.0.0.1", 8080),
        ("staging", "staging", "127.0.0.1", 8081),
        ("prod", "prod", "0.0.0.0", 80),
        ("last", "last", "127.0.0.1", 8083),
    ]


def test_prod_has_a_nat_gateway_in_each_zone_by_default() -> None:
    found = settings("{stages: {dev: {}, prod: {}}}").stages
    assert [s.nat for s in found] == [Nat.SINGLE, Nat.PER_AZ]
    assert settings("{stages: {prod: {nat: single}}}", stage="prod").stages[0].nat is Nat.SINGLE


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("own", Network()),
        ("none", Network("none")),
        ("{stack: clock-core-prod}", Network("stack", stack="clock-core-prod")),
        (
            "{vpc: vpc-0a1b2c3d, subnets: [subnet-0a1b2c3d, subnet-1a1b2c3d]}",
            Network("vpc", vpc="vpc-0a1b2c3d", subnets=("subnet-0a1b2c3d", "subnet-1a1b2c3d")),
        ),
    ],
)
def test_a_stage_names_its_network(text: str, network: Network) -> None:
    assert settings(f"{{stages: {{dev: {{network: {text}}}}}}}").stages[0].network == network


def test_rehearsal_may_be_a_flag_or_a_map_of_settings() -> None:
    assert [stage(f"{{rehearsal: {word}}}").rehearsal for word in ("true", "false", "{shift_s: 9}")] == [
        RehearsalSettings(),
        None,
        RehearsalSettings(shift_s=9),
    ]
    for wrong in ("{beside_s: 0}", "{rate: no}", "{seconds: 3}", "[1]"):
        with pytest.raises(ServiceFileError, match="rehearsal"):
            stage(f"{{rehearsal: {wrong}}}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{}", (True, None, "none", True)),
        ("{rehearsal: true, approval: manual}", (True, RehearsalSettings(), "manual", True)),
        ("{steps: []}", (False, None, "none", False)),
        ("{steps: [source, test, build, deploy]}", (True, None, "none", False)),
        ("{steps: [rehearse, approve, verify]}", (False, RehearsalSettings(), "manual", True)),
        ("{steps: [test, rehearse], rehearsal: {rate: 7}}", (True, RehearsalSettings(rate_per_s=7), "none", False)),
        ("{steps: [test, approve], approval: manual, rehearsal: false}", (True, None, "manual", False)),
    ],
)
def test_the_steps_setting_selects_which_pipeline_steps_run(text: str, expected: tuple[object, ...]) -> None:
    found = stage(text)
    assert (found.test, found.rehearsal, str(found.approval), found.verify) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{steps: [test], rehearsal: true}", "stages.dev.rehearsal: asks for a rehearsal, but steps has no rehearse"),
        ("{steps: [rehearse], rehearsal: false}", "stages.dev.rehearsal: is false, but steps has rehearse"),
        ("{steps: [test], approval: manual}", "stages.dev.approval: is manual, but steps has no approve"),
        ("{steps: [approve], approval: none}", "stages.dev.approval: is none, but steps has approve"),
        ("{steps: [verify, test]}", "stages.dev.steps: names a step twice, or out of order"),
        ("{steps: [test, test]}", "stages.dev.steps: names a step twice, or out of order"),
        ("{steps: [tests]}", "'tests' is not one of source, test"),
        ("{steps: test}", "must be a list"),
    ],
)
def test_contradictory_pipeline_steps_are_an_error(text: str, message: str) -> None:
    with pytest.raises(ServiceFileError, match=re.escape(message)):
        stage(text)


def test_every_setting_of_a_stage_is_read() -> None:
    text = """{branch: main, home: aws, listen: '[::1]:9000', strategy: Canary10Percent5Minutes, approval: manual,
        rehearsal: {beside_s: 20, rate: 50}, shield: false, nat: per-az, network: own,
        domain: api.example.com, basePath: v1,
        throttle: {rate_per_s: 100.5, burst: 200},
        smoke: [GET /health],
        alarms: {error_rate_percent: 2.5, minimum_requests: 5, p99_ms: 250, p99_relative_percent: 150, guard_s: 0,
        also: [disk, disk, queue]},
        hooks: {pre_traffic: check, post_traffic: report}, sticky: 'cookie:session', release_header: false,
        notify: [{slack: 'https://a.example'}], access_log: all, access_log_query: false, trace_requests: true,
        steps: [rehearse, approve],
        ready_timeout_s: 30, required_checks: true}"""
    found = stage(text)
    assert (found.branch, found.home, found.host, found.port) == ("main", Home.AWS, "::1", 9000)
    assert (found.strategy, found.approval, found.nat) == (Canary(10, 300), Approval.MANUAL, Nat.PER_AZ)
    assert (found.shield, found.release_header) == (False, False)
    assert found.rehearsal == RehearsalSettings(beside_s=20, rate_per_s=50)
    assert (found.domain, found.base_path) == ("api.example.com", "/v1")
    assert found.throttle == Throttle(100.5, 200)
    assert found.alarms == AlarmSettings(
        2.5, 5, p99_ms=250, p99_relative_percent=150, guard_s=0, also=("disk", "queue")
    )
    assert found.hooks == Hooks("check", "report")
    assert found.sticky == Sticky(StickyBy.COOKIE, "session")
    assert (found.ready_timeout_s, found.required_checks) == (30, True)
    assert (found.access_log, found.access_log_query, found.trace_requests) == (AccessLog.ALL, False, True)
    assert [stage(f"{{access_log: {word}}}").access_log for word in ("off", "'off'", "sampled")] == [
        AccessLog.OFF,
        AccessLog.OFF,
        AccessLog.SAMPLED,
    ]
    with pytest.raises(ServiceFileError, match="access_log"):
        stage("{access_log: some}")
    assert set(STAGE) - {"tls"} == set(parse_yaml(f"a: {text}", "f.yml").mapping()["a"].mapping())


def test_a_smoke_request_may_be_a_line_or_a_map() -> None:
    found = stage("""{smoke: ['GET /health?deep=1', post /x, {path: /y, method: put, status: 201,
        headers: {Authorization: s3cret}, body: {ä: [1, null]}}, {path: /z, body: text}]}""").smoke
    assert [(r.method, r.path, r.status) for r in found] == [
        ("GET", "/health?deep=1", 200),
        ("POST", "/x", 200),
        ("PUT", "/y", 201),
        ("GET", "/z", 200),
    ]
    assert json.loads(found[2].body or "") == {"ä": [1, None]}
    assert found[2].headers == (("Authorization", "s3cret"), ("content-type", "application/json"))
    assert (found[3].body, found[3].headers) == ("text", ())


def test_a_smoke_requests_own_content_type_is_kept() -> None:
    found = stage("{smoke: [{path: /, method: POST, headers: {Content-Type: application/x}, body: []}]}").smoke[0]
    assert found.headers == (("Content-Type", "application/x"),)
    assert found.body == "[]"


def test_workers_may_be_a_number_or_a_range() -> None:
    assert settings("{workers: 5}").workers == Workers(5)
    assert settings("{workers: {min: 3, max: 9}}").workers == Workers(3, 9)
    assert settings("{workers: {min: 3}}").workers == Workers(3)
    assert settings("{workers: {min: 0, max: 1, target_percent: 50}}").workers == Workers(0, 1, 50)


def test_a_sticky_client_is_identified_by_address_header_or_cookie() -> None:
    assert stage("{sticky: address}").sticky == Sticky(StickyBy.ADDRESS)
    assert stage("{sticky: 'header:X-User'}").sticky == Sticky(StickyBy.HEADER, "x-user")
    assert stage("{sticky: false}").sticky is None


def test_idempotent_routes_are_the_same_for_all_stages() -> None:
    limits = "memory_mb: 512, total_workers: 40"
    found = settings(f"{{idempotent: ['put /items/{{id}}/'], {limits}, stages: {{dev: {{}}, prod: {{}}}}}}")
    assert {s.idempotent for s in found.stages} == {(Route("PUT", "/items/{id}"),)}
    assert (found.memory_mb, found.total_workers) == (512, 40)


MISTAKES = [
    ("{workers: 0}", "custom.hitless.workers: must be a whole number from 1 to 1000", ""),
    ("{workers: 1001}", "from 1 to 1000", ""),
    ("{workers: many}", "from 1 to 1000", ""),
    ("{workers: {max: 3}}", "has no min", "{min: 2, max: 8}"),
    ("{workers: {min: 0}}", "from 1 to 1000", ""),
    ("{workers: {min: 0, max: 0}}", "from 1 to 1000", ""),
    ("{memory_mb: 1}", "from 64 to", ""),
    ("{total_workers: 0}", "from 1 to", ""),
    ("{cpu_percent: 50}", "cpu_percent", ""),
    ("{idempotent: [GET]}", "is not a route", "PUT /items/{id}"),
    ("{stages: {dev: {sticky: session}}}", "cannot distinguish clients", "cookie:NAME"),
    ("{stages: {dev: {sticky: 'address:x'}}}", "cannot distinguish clients", "address"),
    ("{stages: {dev: {sticky: 'header:a b'}}}", "cannot distinguish clients", ""),
    ("{stages: {dev: {hooks: {pre: x}}}}", "is not a setting", "pre_traffic"),
    ("{stages: {dev: {alarms: {p99_relative_percent: 99}}}}", "a number from 100", ""),
    ("{stages: {dev: {alarms: {also: [a, b, c, d, e, f, g, h]}}}}", "up to 7 alarm names", ""),
    ("{stages: {dev: {alarms: {also: ['']}}}}", "up to 7 alarm names", ""),
    ("{workers: {min: 3, max: 2}}", "from 3 to 1000", ""),
    ("{import: shard}", "custom.hitless.import: 'shard' is not one of shared, per-worker", "did you mean shared?"),
    ("{workers: {mn: 3}}", "custom.hitless.workers.mn: is not a setting", "did you mean min?"),
    ("{worker: 3}", "custom.hitless.worker: is not a setting", "did you mean workers?"),
    ("{xyz: 3}", "is not a setting", "known here: workers"),
    ("[]", "must be a map", ""),
    ("{stages: [dev]}", "custom.hitless.stages: must be a map, not a list", ""),
    ("{stages: {dev: {stratgy: x}}}", "stages.dev.stratgy: is not a setting", "did you mean strategy?"),
    ("{stages: {dev: {strategy: Canary}}}", "'Canary' is not a strategy", "Canary10Percent5Minutes"),
    ("{stages: {dev: {home: asw}}}", "'asw' is not one of engine, aws", "did you mean aws?"),
    ("{stages: {dev: {approval: yes}}}", "is not one of none, manual", ""),
    ("{stages: {dev: {nat: two}}}", "is not one of single, per-az, none", ""),
    ("{stages: {dev: {throttle: {burst: -5}}}}", "must be a whole number from 0", ""),
    ("{stages: {dev: {throttle: {brst: 5}}}}", "is not a setting", "did you mean burst?"),
    ("{stages: {dev: {network: two}}}", "is not one of own, none", ""),
    ("{stages: {dev: {network: {vpc: vpc-0a1b2c3d}}}}", "names no network", "subnets: [subnet-…]"),
    ("{stages: {dev: {network: {vpc: vpc-0a1b2c3d, subnets: []}}}}", "names no network", ""),
    ("{stages: {dev: {network: {vpc: vpc-0a1b2c3d, subnets: [subnet-x]}}}}", "is not a subnet's id", ""),
    ("{stages: {dev: {network: {stack: a_b}}}}", "is not a stack's name", ""),
    ("{stages: {dev: {network: none, nat: single}}}", "nat applies to the stage's own network", "remove nat"),
    ("{stages: {dev: {listen: 8080}}}", "is not HOST:PORT", "127.0.0.1:8080"),
    ("{stages: {dev: {tls: {certificate: /c.pem}}}}", "needs certificate and key", "serverless-yml.md"),
    ("{stages: {dev: {tls: {certificate: c.pem, key: /k.pem}}}}", "is not the absolute path", ""),
    ("{stages: {dev: {tls: {certificate: /c, key: /k, challenges: ':1'}}}}", "and redirect for challenges", ""),
    ("{stages: {dev: {tls: {certificate: /c, key: /k, redirect: ':0'}}}}", "different, fixed ports", ""),
    ("{stages: {dev: {tls: {acme: {}}}}}", "tls.acme needs the stage's domain", "add domain: api.example.org"),
    ("{stages: {dev: {tls: {acme: {}, key: /k}}}}", "has settings that exclude each other", "remove certificate, key"),
    ("{stages: {dev: {tls: {acme: {}, certificate: /c, key: /k}}}}", "has settings that exclude each other", "remove"),
    ("{stages: {dev: {tls: {acme: {staging: true, directory: 'https://ca.example.org/'}}}}}", "exclude each other", ""),
    ("{stages: {dev: {tls: {acme: {directory: 'http://ca.example.org/'}}}}}", "is not the https:// URL", ""),
    ("{stages: {dev: {tls: {acme: {email: ops}}}}}", "is not one e-mail address", ""),
    (
        "{stages: {dev: {listen: ':443', tls: {certificate: /c, key: /k, redirect: ':80'}}, b: {listen: ':80'}}}",
        "b: listens on 0.0.0.0:80, as dev does",
        "own listen",
    ),
    ("{stages: {dev: {shield: maybe}}}", "must be true or false", ""),
    ("{stages: {dev: {domain: a.org, basePath: a/b}}}", "is not a base path: letters", ""),
    ("{stages: {dev: {domain: a.org, basePath: '/'}}}", "is not a base path: letters", ""),
    ("{stages: {dev: {basePath: v1}}}", "basePath needs the stage's domain", "add domain: api.example.org"),
    ("{stages: {dev: {domain: UPPER.com}}}", "is not a domain name", ""),
    ("{stages: {dev: {domain: nodots}}}", "is not a domain name", ""),
    ("{stages: {dev: {branch: 'a b'}}}", "is not the name of a git branch", ""),
    ("{stages: {dev: {branch: '-x'}}}", "is not the name of a git branch", ""),
    ("{stages: {dev: {branch: 'a..b'}}}", "is not the name of a git branch", ""),
    ("{stages: {dev: {ready_timeout_s: 0}}}", "from 1 to 900", ""),
    ("{stages: {dev: {alarms: {error_rate: 1}}}}", "is not a setting", "error_rate_percent"),
    ("{stages: {dev: {alarms: {error_rate_percent: 101}}}}", "a number from 0 to 100", ""),
    ("{stages: {dev: {alarms: {minimum_requests: 0}}}}", "a whole number from 1", ""),
    ("{stages: {dev: {smoke: GET /}}}", "must be a list", ""),
    ("{stages: {dev: {smoke: [/health]}}}", "smoke[0]: '/health' has an unknown method", "write GET /health"),
    ("{stages: {dev: {smoke: [FETCH /]}}}", "smoke[0]: 'FETCH /' has an unknown method", "GET /path"),
    ("{stages: {dev: {smoke: [GET health]}}}", "begins with a slash", ""),
    ("{stages: {dev: {smoke: [GET]}}}", "begins with a slash", ""),
    ("{stages: {dev: {smoke: [GET /a b]}}}", "contains no spaces", ""),
    ("{stages: {dev: {smoke: [{method: GET}]}}}", "has no path", ""),
    ("{stages: {dev: {smoke: [{path: /, stauts: 1}]}}}", "is not a setting", "did you mean status?"),
    ("{stages: {dev: {smoke: [{path: /, status: 99}]}}}", "from 100 to 599", ""),
    ('{stages: {dev: {smoke: [{path: /, headers: {x: "a\\r\\nb"}}]}}}', "is not a header", ""),
    ("{stages: {dev: {smoke: [{path: /, headers: {'a b': c}}]}}}", "is not a header", ""),
    ("{stages: {dev: {}, 'a_b': {}}}", "a stage's name is letters", ""),
    (
        "{stages: {dev: {}, b: {listen: '127.0.0.1:8080'}}}",
        "b: listens on 127.0.0.1:8080, as dev does",
        "own listen",
    ),
]
"""Settings, and the error's message and hint."""


@pytest.mark.parametrize(("hitless", "message", "hint"), MISTAKES)
def test_a_mistake_is_an_error_with_key_and_hint(hitless: str, message: str, hint: str) -> None:
    error = fault(hitless)
    assert message in error.message
    assert error.message.startswith("f.yml:2: custom.hitless")
    assert hint in error.hint


def test_tls_is_read() -> None:
    files = "certificate: /c.pem, key: /k.pem"
    assert stage(f"{{tls: {{{files}}}}}").tls == TlsSettings("/c.pem", "/k.pem")
    found = stage(f"{{tls: {{{files}, redirect: ':80', challenges: '127.0.0.1:8402', hsts_s: 0}}}}").tls
    assert found == TlsSettings("/c.pem", "/k.pem", ("0.0.0.0", 80), ("127.0.0.1", 8402), 0)
    found = stage("{domain: a.example.org, tls: {acme: {email: ops@example.org, staging: true}}}").tls
    assert found == TlsSettings(acme=AcmeSettings("ops@example.org", staging=True))
    assert found.acme is not None
    assert found.acme.url == "https://acme-staging-v02.api.letsencrypt.org/directory"
    assert AcmeSettings().url == "https://acme-v02.api.letsencrypt.org/directory"


def test_two_stages_may_both_listen_on_any_free_port() -> None:
    assert [s.port for s in settings("{stages: {dev: {listen: ':0'}, b: {listen: ':0'}}}").stages] == [0, 0]


def test_a_misspelt_stage_is_an_error_that_lists_the_stages() -> None:
    error = fault("{stages: {dev: {}, staging: {}}}", "stagin")
    assert "there is no stage stagin; stages are dev, staging" in error.message
    assert error.hint == "did you mean staging?"


def test_an_unlisted_stage_gets_the_defaults_and_a_free_port() -> None:
    assert read_settings(parse_yaml("a: 1", "f.yml"), "me").stages == (StageSettings("me", "me"),)
    found = settings("{idempotent: [PUT /a], stages: {dev: {listen: ':8082'}, test: {}}}", stage="prod").stages
    idempotent = (Route("PUT", "/a"),)
    assert found[2] == StageSettings("prod", "prod", port=8083, nat=Nat.PER_AZ, idempotent=idempotent)
    assert [one.name for one in settings("{stages: {dev: {}}}").stages] == ["dev"]
    assert "is not a stage's name" in fault("{}", "a/b").message


def test_notifications_are_read_and_not_in_the_repr() -> None:
    found = stage("{notify: [{slack: 'https://hooks.example.org/x'}, {command: mail -s run ops}]}")
    assert [(str(one.by), one.target) for one in found.notify] == [
        ("slack", "https://hooks.example.org/x"),
        ("command", "mail -s run ops"),
    ]
    assert "hooks.example.org" not in repr(found)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{notify: [{slack: ftp://x}]}", "is not an http or https URL"),
        ("{notify: [{mail: x}]}", "is not a setting"),
        ("{notify: [{slack: 'https://x', command: y}]}", "needs exactly one receiver"),
        ("{notify: [{command: ' '}]}", "is empty"),
    ],
)
def test_an_invalid_notification_is_an_error(text: str, message: str) -> None:
    assert message in fault(f"{{stages: {{dev: {text}}}}}").message


def previews(text: str, stages: str = "dev: {}, prod: {}") -> PreviewSettings | None:
    return settings(f"{{stages: {{{stages}}}, previews: {text}}}").previews


def test_previews_are_off_by_default() -> None:
    assert settings("{}").previews is None
    assert previews("") is None
    assert previews("{}") == PreviewSettings("dev", "127.0.0.1", 8090, "", 5, 72, 1, automatic=True)


def test_every_setting_of_previews_is_read() -> None:
    text = """{listen: ':9000', domain: p.example.org, max: 2, from_stage: test, expires_h: 1, workers: 2,
        automatic: false}"""
    found = previews(text, "dev: {}, test: {}")
    assert found == PreviewSettings("test", "0.0.0.0", 9000, "p.example.org", 2, 1, 2, automatic=False)
    assert all(f"{key}:" in text for key in PREVIEWS)


def test_previews_use_the_first_unguarded_stage() -> None:
    found = previews("{}", "prod: {}, held: {approval: manual}, far: {home: aws}, dev: {}")
    assert found is not None
    assert found.from_stage == "dev"


@pytest.mark.parametrize("stages", ["dev: , prod: {}", "dev: , prod: {approval: manual}", "dev: , prod: {home: aws}"])
def test_previews_cannot_use_a_guarded_stage(stages: str) -> None:
    with pytest.raises(ServiceFileError, match=r"previews\.from_stage: 'prod' is not a stage whose") as caught:
        previews("{from_stage: prod}", stages)
    assert caught.value.hint == "name one of: dev"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{from_stage: nowhere}", "'nowhere' is not a stage"),
        ("{listen: '127.0.0.1:8080'}", "previews listen on 127.0.0.1:8080, as dev does"),
        ("{max: 0}", "a whole number from 1 to 50"),
        ("{expires_h: 0}", "a whole number from 1"),
        ("{workers: {min: 0}}", "a whole number from 1"),
        ("{domain: Preview}", "a domain name in lower case"),
        (f"{{domain: {'a.' * 95}example}}", "more than 180 characters"),
        ("{hosts: 1}", "hosts"),
        ("true", "must be a map"),
    ],
)
def test_mistakes_in_the_previews_setting_are_errors(text: str, words: str) -> None:
    with pytest.raises(ServiceFileError, match=words):
        previews(text)


def test_a_service_with_only_prod_has_no_previews() -> None:
    with pytest.raises(ServiceFileError, match="no stage can be the base of previews"):
        read_settings(parse_yaml("custom: {hitless: {stages: {prod: {}}, previews: {}}}", "f.yml"), "prod")


def test_provisioned_concurrency_limits_are_set_per_function() -> None:
    found = settings("{provisioned: {api: {max: 20}, other: {max: 9, target_percent: 50}}}").provisioned
    assert {name: (one.most, one.target_percent) for name, one in found.items()} == {"api": (20, 70), "other": (9, 50)}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{api: {}}", "has no max"),
        ("{api: {max: 0}}", "1 to 100000"),
        ("{api: {max: 5, target_percent: 95}}", "10 to 90"),
        ("{api: {max: 5, min: 2}}", "min"),
    ],
)
def test_impossible_concurrency_limits_are_errors(text: str, said: str) -> None:
    assert said in fault(f"{{provisioned: {text}}}").message


@pytest.mark.parametrize(("text", "expected"), [("", False), ("import: shared", False), ("import: per-worker", True)])
def test_each_worker_may_import_the_handler_itself(text: str, expected: bool) -> None:
    assert settings(f"{{{text}}}").import_per_worker is expected


@pytest.mark.parametrize("keys", ["[]", "[{kty: RSA, n: a, e: b}]", "[{kid: k, kty: RSA, n: a, e: b, d: c}]"])
def test_an_issuers_keys_must_be_public_keys(keys: str) -> None:
    said = "jwks.x: is not a set of public keys with a kid"
    assert said in fault(f"{{jwks: {{x: {{keys: {keys}}}}}}}").message
    assert settings("{jwks: {x: {keys: [{kid: k}]}}}").jwks == {"x": '{"keys": [{"kid": "k"}]}'}


def test_build_limits_are_read_with_their_defaults() -> None:
    assert settings("{}").builds == BuildSettings(10, 4096, 16)
    assert settings("{builds: {timeout_in_minutes: 90}}").builds == BuildSettings(90, 4096, 16)
    text = "{builds: {timeout_in_minutes: 2160, memory_mb: 64, output_mb: 1}}"
    assert settings(text).builds == BuildSettings(2160, 64, 1)


@pytest.mark.parametrize(
    "text",
    [
        "{timeout_in_minutes: 0}",
        "{timeout_in_minutes: 2161}",
        "{memory_mb: 63}",
        "{output_mb: 1025}",
        "{minutes: 1}",
        "5",
    ],
)
def test_invalid_build_limits_are_errors(text: str) -> None:
    assert "custom.hitless.builds" in fault(f"{{builds: {text}}}").message
