"""Variables: sources, defaults, types, cycles, and a naive oracle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hitless.errors import ServiceFileError
from hitless.service.files import Files
from hitless.service.load import parse_yaml
from hitless.service.resolve import Resolver, VariableContext
from hitless.service.value import Notices, Unresolved, Value, from_plain

pytestmark = pytest.mark.unit


class FakeFiles(Files):
    """Files by name, with YAML text."""

    def __init__(self, files: Mapping[str, str]) -> None:
        self._trees = {name: parse_yaml(text, name) for name, text in files.items()}

    def read(self, written: str, at: Value) -> Value | None:
        return self._trees.get(written)

    def why_missing(self, written: str, at: Value) -> tuple[str, str]:
        return ("", "") if written in self._trees else (f"there is no file {written}", "")


def resolve(
    text: str,
    *,
    stage: str = "dev",
    options: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
    files: Mapping[str, str] | None = None,
    params: Mapping[str, str] | None = None,
    notices: Notices | None = None,
    on_aws: bool = False,
    secrets: Mapping[str, str] | None = None,
) -> Value:
    files_of_it = FakeFiles(files or {})
    context = VariableContext(
        stage, options or {}, environ or {}, files_of_it, params or {}, on_aws, secrets=secrets or {}
    )
    return Resolver(parse_yaml(text, "f.yml"), context, notices or Notices()).resolve()


def one(expression: str, **more: Any) -> object:
    """The value of `expression` as the value of a key."""
    return (
        resolve(f"custom: {{n: 5, t: text, m: {{a: [x, y]}}, e: ''}}\nv: {expression}", **more).mapping()["v"].plain()
    )


def fault(text: str, **more: Any) -> ServiceFileError:
    with pytest.raises(ServiceFileError) as caught:
        resolve(text, **more).plain()
    return caught.value


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("${self:custom.n}", 5),
        ("${self:custom.m}", {"a": ["x", "y"]}),
        ("${self:custom.m.a.1}", "y"),
        ("n=${self:custom.n}", "n=5"),
        ("${self:custom.e}", ""),
        ("${self:custom.none, 'd'}", "d"),
        ("${self:custom.none, 7}", 7),
        ("${self:custom.none, true}", True),
        ("${self:custom.none, 1.5e3}", 1500),
        ("${self:custom.none, 0x10}", 16),
        ("${self:custom.none, null}", None),
        ("${self:custom.t.deeper, 'd'}", "d"),
        ("${self:custom.m.a.9, 'd'}", "d"),
        ("${opt:none, self:custom.t}", "text"),
        ("${opt:none, ${env:NONE}, 'd'}", "d"),
        ("${opt:none, '${self:custom.t}!'}", "text!"),
        ("${sls:stage}", "dev"),
        ("${opt:stage}", "dev"),
        ("${sls:instanceId}", "hitless"),
        ("${aws:region}", "us-east-1"),
        ("${strToBool(1)}", True),
        ("${strToBool(${opt:x, 'false'})}", False),
        ("'${AWS::Region}-${self:custom.t}'", "${AWS::Region}-text"),
        (r"'\${self:custom.t}'", "${self:custom.t}"),
    ],
)
def test_a_variable_has_the_value_and_type_that_serverless_framework_gives_it(expression: str, value: object) -> None:
    assert one(expression) == value


def test_options_and_environment_are_looked_up() -> None:
    assert one("${opt:x}-${env:X}", options={"x": "o"}, environ={"X": "e"}) == "o-e"
    assert one("${env:X, 'd'}", environ={"X": ""}) == ""
    assert one("${aws:region}", options={"region": "eu-west-1"}) == "eu-west-1"


def test_the_aws_region_variable_is_the_providers_region() -> None:
    tree = resolve("provider: {region: '${opt:region, ''eu-central-1''}'}\nv: ${aws:region}")
    assert tree.mapping()["v"].plain() == "eu-central-1"


def test_addresses_may_contain_variables() -> None:
    text = "custom: {dev: {x: 1}, prod: {x: 2}}\nv: ${self:custom.${sls:stage}.x}"
    assert resolve(text, stage="prod").mapping()["v"].plain() == 2


def test_variables_in_referenced_values_are_resolved() -> None:
    text = "a: ${self:b}\nb: {c: '${self:d.0}'}\nd: ['${sls:stage}']\ne: ${self:a.c}"
    assert resolve(text).mapping()["e"].plain() == "dev"


def test_files_are_read_whole_or_by_key_and_resolved_in_the_files_context() -> None:
    files = {"a.yml": "x: {y: '${sls:stage}', z: '${file(b.yml):q}'}", "b.yml": "q: [1]"}
    assert one("${file(a.yml)}", files=files) == {"x": {"y": "dev", "z": [1]}}
    assert one("${file(a.yml):x.z.0}", files=files) == 1
    assert one("${file(${opt:f}.yml):q}", files=files, options={"f": "b"}) == [1]
    assert one("${file(none.yml):q, 'd'}", files=files) == "d"
    assert one("${file(b,c.yml):q, 'd'}", files=files) == "d"
    assert one("${file('b,c.yml'):q}", files={"b,c.yml": "q: 1"}) == 1
    assert one("${file(b.yml):none, 'd'}", files=files) == "d"


def test_keys_from_a_file_can_be_referenced() -> None:
    tree = resolve(
        "functions: ${file(f.yml)}\nv: ${self:functions.api.handler}", files={"f.yml": "api: {handler: a.b}"}
    )
    assert tree.mapping()["v"].plain() == "a.b"


def test_a_stages_parameters_take_precedence_over_default_ones() -> None:
    text = "params: {default: {a: 1, b: 2}, prod: {a: 3}}\nstages: {prod: {params: {c: 4}}}\nv: '${param:a}${param:b}'"
    assert resolve(text).mapping()["v"].plain() == "12"
    assert resolve(text, stage="prod").mapping()["v"].plain() == "32"
    assert resolve(text + "\nw: ${param:c}", stage="prod").mapping()["w"].plain() == 4


def test_parameters_of_other_stages_need_no_value() -> None:
    text = "params: {prod: {key: '${env:PROD_ONLY}'}, dev: {key: x}}\nv: ${param:key}"
    assert resolve(text).mapping()["v"].plain() == "x"
    assert "PROD_ONLY" in fault(text, stage="prod").message


def test_a_variable_without_a_value_is_an_error_in_place_with_a_default_as_hint() -> None:
    error = fault("custom:\n  a: ${self:custom.none}")
    assert error.message == "f.yml:2: custom.a: ${self:custom.none} has no value"
    assert error.hint == "give it a default: ${self:custom.none, 'value'}"
    assert fault("a: ${env:KEY}").hint.startswith("set KEY in the environment")
    assert fault("a: ${opt:x, ${opt:y}}").message.endswith("has no value")


def test_an_error_says_whether_the_file_or_its_key_is_missing() -> None:
    text = "a: ${file(f.yml):k}"
    missing, keyless = fault(text), fault(text, files={"f.yml": "other: 1"})
    assert missing.message.endswith("has no value: there is no file f.yml")
    assert missing.hint.startswith("create it, or give it a default")
    assert keyless.message.endswith("has no value: f.yml has no key k")
    assert keyless.hint.startswith("add k to f.yml, or give it a default")


@pytest.mark.parametrize(
    ("text", "cycle"),
    [
        ("a: ${self:a}", "a → a"),
        ("a: ${self:b}\nb: ${self:c}\nc: x${self:a}", "a → b → c → a"),
        ("custom: {m: {x: '${self:custom.m}'}}", "custom.m.x → custom.m.x"),
        ("a: {k: '${self:b}'}\nb: {k: '${self:a.k}'}", "b.k → b.k"),
    ],
)
def test_a_cycle_is_an_error_that_names_it(text: str, cycle: str) -> None:
    assert f"refers to itself: {cycle}" in fault(text).message


def test_a_cycle_through_files_is_an_error() -> None:
    files = {"a.yml": "x: ${file(b.yml):x}", "b.yml": "x: ${file(a.yml):x}"}
    assert "refers to itself: x → x → x" in fault("v: ${file(a.yml):x}", files=files).message


def test_a_file_included_as_a_whole_section_may_refer_to_that_section() -> None:
    files = {"c.yml": "x: 1\ny: ${self:custom.x}\nz: {k: '${self:custom.y}-z'}"}
    tree = resolve("custom: ${file(c.yml)}\nv: ${self:custom.z}", files=files)
    assert tree.plain() == {"custom": {"x": 1, "y": 1, "z": {"k": "1-z"}}, "v": {"k": "1-z"}}


def test_variables_inside_a_cloudformation_function_are_resolved() -> None:
    text = "service: s\nv: !Sub '${self:service}-${AWS::Region}-${Foo}'\nw: !Sub '${self:service}'\nx: {y: !Ref z}"
    tree = resolve(text + "\nu: ${self:x}").mapping()
    assert (tree["v"].data, tree["v"].intrinsic()) == ("s-${AWS::Region}-${Foo}", "!Sub")
    assert (tree["w"].data, tree["w"].intrinsic()) == ("s", "!Sub")
    assert tree["u"].mapping()["y"].intrinsic() == "!Ref"


def test_a_missing_value_is_an_error_only_if_it_is_read() -> None:
    tree = resolve("custom: {a: '${env:KEY}', b: '${self:custom.a, ''x''}', c: 1}\nv: ${self:custom}").mapping()
    assert tree["v"].mapping()["c"].plain() == 1
    for name in ("a", "b"):
        with pytest.raises(ServiceFileError, match=r"f.yml:1: custom.a: \$\{env:KEY\} has no value"):
            tree["v"].mapping()[name].text()


def test_a_parameters_name_may_have_dots_and_the_command_line_wins() -> None:
    text = "params: {default: {a.b: dotted, m: {n: nested}}}\nv: ['${param:a.b}', '${param:m.n, ''none''}']"
    assert resolve(text).mapping()["v"].plain() == ["dotted", "none"]
    assert resolve(text, params={"a.b": "given"}).mapping()["v"].plain() == ["given", "none"]
    assert "--param KEY=VALUE" in fault("v: ${param:KEY}").hint


def test_the_suffix_of_a_decrypted_parameter_is_not_part_of_its_name() -> None:
    assert resolve("v: '${ssm:/a/key~true}'", params={"ssm:/a/key": "x"}).mapping()["v"].plain() == "x"
    assert fault("v: '${ssm:/a/key~true}'").hint.startswith("store it with `hitless secrets set /a/key`, ")


def test_the_stage_option_defaults_to_the_files_stage() -> None:
    assert one("${opt:stage, 'x'}") == "x"
    assert one("${opt:stage, self:provider.stage}") == "dev"
    assert one("${opt:stage, 'x'}", options={"stage": "prod"}, stage="prod") == "prod"


def test_two_references_to_one_value_are_not_a_cycle() -> None:
    assert resolve("a: '${self:b}${self:b}'\nb: '${self:c}'\nc: x").mapping()["a"].plain() == "xx"


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("${self:}", "whole file"),
        ("${env:}", "names no variable"),
        ("${file():x}", "names no file"),
        ("${slef:custom.a}", "not a source"),
        ("${sls:stgae}", "does not exist"),
        ("${aws:partition}", "does not exist"),
        ("${strToBool(maybe)}", "takes true"),
        ("x${self:custom.m}", "is not a string"),
        ("${self:custom.n", "malformed"),
        ("${self:${self:custom.m}}", "must be a string"),
    ],
)
def test_a_bad_reference_is_an_error_in_place(expression: str, message: str) -> None:
    error = fault(f"custom: {{n: 5, m: {{}}}}\nv: {expression}")
    assert message in error.message
    assert error.message.startswith("f.yml:2: v: ")


def test_a_value_that_only_aws_knows_is_an_error_when_it_is_read() -> None:
    value = resolve("custom: {s: '${ssm:/a/b}'}\nv: x-${self:custom.s}").mapping()["v"]
    assert isinstance(value.data, Unresolved)
    with pytest.raises(
        ServiceFileError, match=r"f.yml:2: v: \$\{ssm:/a/b\} cannot be resolved here: the stage has no secret"
    ):
        value.text()


@pytest.mark.parametrize(
    "kind", ["ssm:/x", "s3:b/k", "cf:stack.Out", "cf.eu-west-1:s.o", "git:sha1", "vault:x", "mine:x"]
)
def test_unavailable_sources_use_the_default_with_a_notice(kind: str) -> None:
    notices = Notices()
    assert resolve(f"v: ${{{kind}, 'd'}}", notices=notices).mapping()["v"].plain() == "d"
    assert f"${{{kind}}} is not available here, so its default is used" in notices.sentences()[0]


@pytest.mark.parametrize("kind", ["ssm:/x", "ssm(eu-west-1, raw):/x", "s3:b/k", "cf:stack.Out", "cf(us-east-1):s.o"])
def test_osls_resolves_its_own_sources_on_aws(kind: str) -> None:
    """The defaults are osls' own decision too: the parameter may exist."""
    text = f"custom: {{s: '${{{kind}}}'}}\nv: x-${{self:custom.s}}\nw: ${{{kind}, 'd'}}"
    notices = Notices()
    tree = resolve(text, on_aws=True, notices=notices).mapping()
    assert (tree["v"].text(), tree["w"].text()) == (f"x-${{{kind}}}", f"${{{kind}}}")
    assert notices.sentences() == ()
    assert resolve("v: ${aws:accountId}", on_aws=True).mapping()["v"].text() == "${aws:accountId}"


def test_a_source_that_neither_osls_nor_this_machine_has_is_an_error_on_aws_too() -> None:
    with pytest.raises(ServiceFileError, match=r"v: .* cannot be resolved here"):
        resolve("v: ${vault:x}", on_aws=True).mapping()["v"].text()


def test_a_parameter_of_the_references_name_gives_its_value_on_one_machine() -> None:
    text = "params: {dev: {'cf:net-dev.Table': clocks}, prod: {'cf:net-dev.Table': no}}\n"
    text += "v: ${ssm:/${sls:stage}/key}\nw: ${cf:net-${sls:stage}.Table, 'd'}"
    tree = resolve(text, params={"ssm:/dev/key": "${env:X}"}).mapping()
    assert (tree["v"].text(), tree["w"].text()) == ("${env:X}", "clocks")
    unresolved = resolve("v: ${ssm:/key}", params={"ssm:/other": "1"}).mapping()["v"]
    with pytest.raises(ServiceFileError) as refused:
        unresolved.text()
    assert "--param 'ssm:/key=VALUE'" in refused.value.hint


def test_an_available_source_is_used_before_an_unavailable_one() -> None:
    notices = Notices()
    tree = resolve("v: ${env:X, ssm:/x}", environ={"X": "here"}, notices=notices)
    assert tree.mapping()["v"].plain() == "here"
    assert notices.sentences() == ()


def test_text_from_files_and_the_environment_is_never_read_as_a_variable() -> None:
    text = "a: ${env:X}\nb: ${self:a}\nc: ${self:m.k}\nm: {k: '${opt:x}'}\nd: ${self:m}"
    text += "\ne: ${self:d.k}\nf: ${self:d.k.z, 'none'}"
    tree = resolve(text, environ={"X": "${self:c}${file(/etc/passwd)}"}, options={"x": "${env:Y}"})
    assert tree.plain() == {
        "a": "${self:c}${file(/etc/passwd)}",
        "b": "${self:c}${file(/etc/passwd)}",
        "c": "${env:Y}",
        "m": {"k": "${env:Y}"},
        "d": {"k": "${env:Y}"},
        "e": "${env:Y}",
        "f": "none",
    }


def test_an_escaped_variable_stays_text_through_references() -> None:
    assert (
        resolve("a: '\\${env:X}'\nb: ${self:a}\nm: {k: '${self:b}'}\nc: ${self:m.k}").mapping()["c"].plain()
        == "${env:X}"
    )


def test_notices_name_an_escaped_variable_and_the_account_number() -> None:
    notices = Notices()
    tree = resolve("a: $${self:x}\nb: ${aws:accountId}", notices=notices)
    assert tree.plain() == {"a": "${self:x}", "b": "123456789012"}
    assert [line.partition(" ")[0] for line in notices.sentences()] == ["f.yml:1:", "f.yml:2:"]


def test_a_resolved_value_has_the_position_of_its_reference_and_of_its_source() -> None:
    tree = resolve("custom:\n  t: [1]\nv: ${self:custom.t}\nw: ${file(a.yml):k}", files={"a.yml": "\nk: s3cret"})
    item = tree.mapping()["v"].items()[0]
    assert (item.path, str(item.place), str(item.origin)) == ("v[0]", "f.yml:3", "f.yml:2")
    assert fault_of(tree.mapping()["w"]) == "f.yml:4: w: must be true or false, not a string (written in a.yml:2)"


def fault_of(value: Value) -> str:
    with pytest.raises(ServiceFileError) as caught:
        value.flag()
    return caught.value.message


def test_secrets_of_the_environment_are_not_in_messages() -> None:
    tree = resolve("a: ${env:KEY}\nb: 'x-${env:KEY}'", environ={"KEY": "s3cret"})
    assert "s3cret" not in fault_of(tree.mapping()["a"]) + fault_of(tree.mapping()["b"])


def test_exponential_text_is_an_error() -> None:
    lines = ["a0: xxxxxxxxxx"] + [f"a{i}: '{f'${{self:a{i - 1}}}' * 10}'" for i in range(1, 9)]
    assert "expand without end" in fault("\n".join(lines)).message


def test_exponential_maps_are_an_error() -> None:
    lines = ["a0: [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}:" + f"\n- ${{self:a{i - 1}}}" * 10 for i in range(1, 9)]
    assert "expand without end" in fault("\n".join(lines)).message


def test_the_depth_of_nested_references_is_limited() -> None:
    lines = [f"a{i}: ${{self:a{i + 1}}}" for i in range(100)] + ["a100: x"]
    assert "more than 40 nested references" in fault("\n".join(lines)).message


PARTS = st.lists(st.one_of(st.sampled_from(["x", "-y", "."]), st.integers(0, 5)), min_size=1, max_size=3)


def evaluate(configuration: list[list[str | int]], index: int, above: tuple[int, ...] = ()) -> str:
    """The oracle: text is text, a number is the value of that key; LookupError on a cycle."""
    if index in above:
        raise LookupError
    return "".join(
        p if isinstance(p, str) else evaluate(configuration, p, (*above, index)) for p in configuration[index]
    )


@given(st.lists(PARTS, min_size=6, max_size=6))
def test_references_resolve_like_a_naive_substitution(configuration: list[list[str | int]]) -> None:
    keys = {
        f"k{i}": "".join(part if isinstance(part, str) else f"${{self:k{part}}}" for part in parts)
        for i, parts in enumerate(configuration)
    }
    root = from_plain(keys, parse_yaml("a: 1", "f.yml").place)
    resolver = Resolver(root, VariableContext("dev", {}, {}, FakeFiles({})), Notices())
    try:
        expected = {f"k{i}": evaluate(configuration, i) for i in range(6)}
    except LookupError:
        with pytest.raises(ServiceFileError, match="refers to itself"):
            resolver.resolve().plain()
        return
    assert resolver.resolve().plain() == expected


SEALED = "{hitless-secret:/shop/db:gAAAAA==}"


def test_a_secret_of_the_stage_is_a_value_of_ssm_and_stays_encrypted() -> None:
    secrets = {"/shop/db": SEALED}
    found = resolve("v: 'postgres://shop:${ssm:/shop/db}@db'", secrets=secrets).mapping()["v"]
    assert found.sealed_text() == f"postgres://shop:{SEALED}@db"
    assert "gAAAAA" not in repr(found)


def test_a_secret_precedes_the_files_parameters_but_not_those_of_the_command() -> None:
    text = "params: {default: {'ssm:/shop/db': of-the-file}}\nv: ${ssm:/shop/db}"
    secrets = {"/shop/db": SEALED}
    assert resolve(text, secrets=secrets).mapping()["v"].sealed_text() == SEALED
    given = resolve(text, secrets=secrets, params={"ssm:/shop/db": "given"}).mapping()["v"]
    assert given.text() == "given"
    assert resolve(text).mapping()["v"].text() == "of-the-file"


def test_osls_resolves_the_same_reference_on_aws() -> None:
    found = resolve("v: ${ssm:/shop/db}", on_aws=True, secrets={"/shop/db": SEALED}).mapping()["v"]
    assert found.text() == "${ssm:/shop/db}"


@pytest.mark.parametrize("use", ["${ssm:/shop/db}", "a-${ssm:/shop/db}", "${strToBool(${ssm:/shop/db})}"])
def test_a_secret_outside_of_an_environment_is_an_error_without_its_value(use: str) -> None:
    found = resolve(f"v: {use}", secrets={"/shop/db": SEALED}).mapping()["v"]
    with pytest.raises(ServiceFileError, match="the secret /shop/db is used here") as error:
        found.text()
    assert "gAAAAA" not in str(error.value.to_json())


def test_a_reference_without_a_secret_names_the_command_that_stores_one() -> None:
    with pytest.raises(ServiceFileError) as error:
        resolve("v: ${ssm:/shop/db}").mapping()["v"].sealed_text()
    assert "`hitless secrets set /shop/db`" in error.value.hint
