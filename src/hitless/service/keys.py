"""All keys of serverless.yml that Serverless Framework (v3, v4, osls) knows, and the effect of each on this machine.

USED keys have the same effect as on AWS. NOTICED keys change behaviour on AWS but not here: each gives
a notice with its effect. AWS keys concern only the deployment to AWS. REFUSED keys leave nothing to
run. Any other key is noticed with the nearest known one, as it may be a plugin's. It is an error if the file asks for
errors (`configValidationMode: error`) or if it resembles a key that protects a route. docs/serverless-yml.md shows this
table, and a test compares the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import msgspec

from hitless.service.value import Notices, Unresolved, Value, did_you_mean


class Here(StrEnum):
    """The effect of a key on this machine."""

    USED = "used"
    NOTICED = "noticed"
    AWS = "AWS only"
    REFUSED = "refused"


class Key(msgspec.Struct, frozen=True):
    """A key path (`*` is any name or item) and, for a noticed one, what is different here."""

    path: str
    here: Here
    effect: str = ""


_EVENT = "the engine has no events of this kind, only http and httpApi routes and schedules"
_NETWORK = "functions are on this machine's network, not in the VPC"
_LAYERS = "layers are not unpacked here; move their content to the service's folder or its dependencies"
_TRACING = "no X-Ray trace is recorded here"
AUTHORIZER = "this authorizer is not enforced here: the route is served only if custom.hitless.open names it"
_API_KEYS = "API keys and usage plans are not enforced here"
_POLICY = "the policy is not enforced here: a route is served only if custom.hitless.open names it"

_EFFECTS: Mapping[str, Mapping[str, Here | str]] = {
    "": {
        "service provider functions package custom params stages useDotenv": Here.USED,
        "plugins": "plugins do not run here",
        "resources": "CloudFormation resources are not created here; functions use existing resources by name",
        "layers": _LAYERS,
        "frameworkVersion configValidationMode deprecationNotificationMode disabledDeprecations variablesResolutionMode"
        " unresolvedVariablesNotificationMode enableLocalInstallationFallback projectDir console org app tenant"
        " licenseKey build outputs state dashboard": Here.AWS,
    },
    "service.": {"name": Here.USED, "awsKmsKeyArn": Here.AWS},
    "package.": {
        "patterns include exclude individually artifact": Here.USED,
        "path excludeDevDependencies": Here.AWS,
    },
    "provider.": {
        "name runtime stage region memorySize timeout environment architecture apiGateway httpApi": Here.USED,
        "vpc": _NETWORK,
        "layers": _LAYERS,
        "tracing": _TRACING,
        "logDataProtectionPolicy": "log lines are not masked here",
        "ecr": "container images are not run here",
        "alb websocket": _EVENT,
        "websocketsApiName websocketsApiRouteSelectionExpression websocketsDescription": _EVENT,
        "apiKeys usagePlan": _API_KEYS,
        "resourcePolicy": _POLICY,
        "cloudFront": "there is no CloudFront in front of the engine",
        "endpointType": "custom.hitless.stages.*.listen decides who can reach the listener",
        "profile stackName tags stackTags deploymentMethod notificationArns stackParameters disableRollback"
        " rollbackConfiguration runtimeManagement logRetentionInDays kmsKeyArn lambdaHashingVersion versionFunctions"
        " deploymentPrefix deploymentBucket apiName iam iamManagedPolicies iamRoleStatements role"
        " rolePermissionsBoundary cfnRole logs stackPolicy s3 eventBridge kinesis vpcEndpointIds build domain domains"
        " observability resolver resolvers alerts": Here.AWS,
    },
    "provider.apiGateway.": {
        "apiKeys usagePlan apiKeySourceType": _API_KEYS,
        "resourcePolicy": _POLICY,
        "binaryMediaTypes": Here.USED,
        "minimumCompressionSize": "responses are not compressed here",
        "request": "requests are not validated against models here",
        "restApiId restApiRootResourceId restApiResources websocketApiId": "the API is not added to an existing one",
        "timeoutInMillis": "the gateway's limit here is 29 s",
        "stage": "stages are those of custom.hitless.stages here",
        "description disableDefaultEndpoint metrics shouldStartNameWithService": Here.AWS,
    },
    "provider.httpApi.": {
        "payload cors authorizers": Here.USED,
        "id": "the API is not added to an existing one",
        "name metrics disableDefaultEndpoint shouldStartNameWithService useProviderTags timeout": Here.AWS,
    },
    "functions.*.": {
        "handler runtime memorySize timeout environment architecture events description package"
        " provisionedConcurrency reservedConcurrency httpApi module url ephemeralStorageSize": Here.USED,
        "name": "context.function_name is service-stage-function here",
        "layers": _LAYERS,
        "vpc": _NETWORK,
        "tracing": _TRACING,
        "onError destinations": "nothing is sent on failure or success: invocations here are synchronous",
        "fileSystemConfig": "no file system is mounted here",
        "logs": "the log format is not changed here",
        "logDataProtectionPolicy": "log lines are not masked here",
        "disableLogs": "logs are still written here",
        "condition": "conditions are CloudFormation's; the function runs here in any case",
        "durableConfig tenancyConfig capacityProvider": "has no effect here",
        "awsKmsKeyArn kmsKeyArn dependsOn maximumEventAge maximumRetryAttempts role iam iamRoleStatements"
        " iamRoleStatementsInherit iamRoleStatementsName runtimeManagement"
        " snapStart tags versionFunction recursiveLoop logRetentionInDays build alerts targetAlias": Here.AWS,
    },
    "functions.*.httpApi.": {"payload": Here.USED},
    "functions.*.url.": {
        "cors": Here.USED,
        "authorizer": AUTHORIZER,
        "invokeMode": "responses are sent when they are complete; nothing is streamed here",
    },
    "functions.*.package.": {
        "patterns include exclude artifact": Here.USED,
        "individually": "set package.individually for the whole service: functions are packaged alike here",
    },
    "functions.*.events.*.": {
        "http httpApi schedule": Here.USED,
        "activemq alb alexaSkill alexaSmartHome cloudFront cloudwatchEvent cloudwatchLog cognitoUserPool"
        " eventBridge iot iotFleetProvisioning kafka msk rabbitmq s3 sns sqs stream websocket": _EVENT,
    },
    "functions.*.events.*.http.": {
        "method path cors integration response authorizer": Here.USED,
        "private": "API keys are not checked here: the route is served only if custom.hitless.open names it",
        "request": "parameters, models and templates are not checked here; the handler gets each request",
        "async": "the client waits for the response here",
        "timeoutInMillis": "the gateway's limit here is 29 s",
        "operationId connectionId connectionType": Here.AWS,
    },
    "functions.*.events.*.httpApi.": {"method path authorizer": Here.USED},
}
"""Parent → its keys → what they do here; a sentence for a noticed key."""

KEYS: tuple[Key, ...] = (
    *(
        Key(parent + key, effect) if isinstance(effect, Here) else Key(parent + key, Here.NOTICED, effect)
        for parent, effects in _EFFECTS.items()
        for keys, effect in effects.items()
        for key in keys.split()
    ),
    Key("functions.*.image", Here.REFUSED, "container images are not run here; write handler and runtime"),
)

QUIET_PLUGINS = {
    "serverless-python-requirements": "hitless installs requirements.txt itself",
    "serverless-wsgi": "hitless adds its handler to the package itself",
    "serverless-offline": "it serves the service on a machine, as hitless does",
    "serverless-iam-roles-per-function": "it changes only the stack on AWS",
    "serverless-plugin-split-stacks": "it changes only the stack on AWS",
    "serverless-prune-plugin": "it changes only the stack on AWS",
}
"""Plugins whose work needs no notice, and why."""

_BUNDLED = "bundle the code yourself, and name the zip in package.artifact"
INSTEAD = {
    "serverless-dotenv-plugin": "set useDotenv: true, and list the variables in provider.environment",
    "serverless-plugin-warmup": "workers stay warm without it",
    "serverless-domain-manager": "set domain under custom.hitless.stages",
    "serverless-plugin-canary-deployments": "set strategy under custom.hitless.stages",
    **dict.fromkeys(
        ("serverless-bundle", "serverless-esbuild", "serverless-plugin-typescript", "serverless-webpack"), _BUNDLED
    ),
}
"""Plugins that do not run, and what replaces them."""

_REQUIREMENTS_LAYER = "PythonRequirementsLambdaLayer"
_REQUIREMENTS = ("requirements.txt", "uv.lock", "poetry.lock", "Pipfile.lock", None)

QUIET_VALUES: dict[str, frozenset[str]] = {
    "provider.endpointType": frozenset({"edge", "regional"}),
}
"""Values of a noticed key that change nothing."""

_GUARDS = ("authorizer", "private", "resourcePolicy")

_BY_PATH = {key.path: key for key in KEYS}
_PARENTS = {key.path[:at] for key in KEYS for at, letter in enumerate(key.path) if letter == "."}


def check_keys(root: Value, notices: Notices) -> None:
    """Add notices for everything that has no effect here. With `configValidationMode: error` and no plugin,
    ServiceFileError for an unknown key.
    """
    plugins, mode, custom = _plugins(root, notices), root.get("configValidationMode"), root.get("custom")
    _walk(root, "", notices, strict=not plugins and mode is not None and mode.data == "error")
    for name, entry in custom.data.items() if custom is not None and isinstance(custom.data, Mapping) else ():
        if name != "hitless" and did_you_mean(name, ["hitless"], likeness=0.8):
            notices.add(f"custom.{name}", entry, "is not read by anything here: did you mean custom.hitless?")
    listed = custom.data.get("pythonRequirements") if custom is not None and isinstance(custom.data, Mapping) else None
    file = listed.data.get("fileName") if listed is not None and isinstance(listed.data, Mapping) else None
    if file is not None and file.data not in _REQUIREMENTS:
        notices.add("fileName", file, "is not read here; hitless installs requirements.txt or a lock file")


def plugins_of(root: Value) -> tuple[Value, ...]:
    """The names of the plugins, which are a list or `plugins.modules`."""
    value = root.get("plugins")
    if value is not None and isinstance(value.data, Mapping):
        value = value.get("modules")
    return value.items() if value is not None else ()


def _plugins(root: Value, notices: Notices) -> list[str]:
    loud: list[str] = []
    for item in plugins_of(root):
        name = item.text()
        if name not in QUIET_PLUGINS:
            loud.append(name)
            instead = f"; {INSTEAD[name]}" if name in INSTEAD else ""
            notices.add(f"plugin {name}", item, f"the plugin {name} does not run here{instead}")
    return loud


def _walk(value: Value, pattern: str, notices: Notices, *, strict: bool) -> None:
    match value.data:
        case Unresolved():
            value.mapping()  # an error: keys that protect routes may be in it
        case tuple() as items:
            inside = f"{pattern}.*" if pattern.endswith(".events") else pattern
            for item in items:
                if inside != pattern and isinstance(item.data, str):
                    _entry(item, inside, item.data, notices, strict=strict)
                else:
                    _walk(item, inside, notices, strict=strict)
        case Mapping() as entries if not pattern.endswith(".events"):
            for name, child in entries.items():
                if pattern == "functions":
                    _walk(child, "functions.*", notices, strict=strict)
                else:
                    _entry(child, pattern, name, notices, strict=strict)


def _entry(value: Value, pattern: str, name: str, notices: Notices, *, strict: bool) -> None:
    path = f"{pattern}.{name}" if pattern else name
    key = _BY_PATH.get(path)
    if key is None:
        _unknown(value, name, pattern, notices, strict=strict)
    elif key.here is Here.REFUSED:
        raise value.fault(key.effect)
    elif key.here is Here.NOTICED and path != "plugins" and _changes(value, path):
        notices.add(path, value, key.effect)
    if path in _PARENTS:
        _walk(value, path, notices, strict=strict)


def _changes(value: Value, path: str) -> bool:
    if path.endswith("layers") and all(_is_requirements_layer(one) for one in value.listed()):
        return False
    if isinstance(value.data, str) and value.data.lower() in QUIET_VALUES.get(path, ()):
        return False
    return bool(value.data)


def _is_requirements_layer(layer: Value) -> bool:
    """Whether serverless-python-requirements makes it, whose work hitless does itself."""
    return any(one.data == _REQUIREMENTS_LAYER for one in layer.walk())


def _unknown(child: Value, name: str, pattern: str, notices: Notices, *, strict: bool) -> None:
    known = [key.path.rpartition(".")[2] for key in KEYS if key.path.rpartition(".")[0] == pattern]
    hint = "did you mean custom.hitless?" if name == "hitless" else did_you_mean(name, known)
    if strict or any(f" {guard}?" in hint for guard in _GUARDS):
        raise child.fault("is not a key of Serverless Framework", hint or f"known here: {', '.join(sorted(known))}")
    sentence = "is not a key of Serverless Framework and does nothing here"
    notices.add(f"unknown {pattern}.{name}", child, f"{sentence}: {hint}" if hint else sentence)
