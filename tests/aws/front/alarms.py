"""Alarms as CodeDeploy reads them: the emulator's own, and metric-math alarms, which it does not evaluate.

A metric-math alarm is a stand-in (standins.py). Its expression is evaluated here on the metrics that the emulator's
CloudWatch holds, over the alarm's window in the front's faster time, never shorter than SHORTEST_WINDOW_S: sums, and of
percentiles the highest of any second. Who asks CloudWatch for alarms finds each of them there, in that state, under the
name that CloudFormation would give it; so composite alarms may be made of them.
"""

from __future__ import annotations

import ast
import functools
import operator
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from tests.aws.front.backend import Backend

SHORTEST_WINDOW_S: Final = 10.0
_EVALUATED_HERE: Final[Mapping[str, Any]] = {
    "Namespace": "front", "MetricName": "math", "Statistic": "Sum", "Period": 60, "EvaluationPeriods": 1,
    "Threshold": 1, "ComparisonOperator": "GreaterThanThreshold", "TreatMissingData": "ignore",
}  # fmt: skip
_COMPARISONS: Final[Mapping[str, Callable[[float, float], bool]]] = {
    "GreaterThanThreshold": operator.gt,
    "GreaterThanOrEqualToThreshold": operator.ge,
    "LessThanThreshold": operator.lt,
    "LessThanOrEqualToThreshold": operator.le,
}
_BINARY: Final[Mapping[type[ast.operator], Callable[[float, float], float]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: lambda a, b: a / b if b else 0.0,
    ast.Pow: operator.pow,
}
_COMPARE: Final[Mapping[type[ast.cmpop], Callable[[float, float], bool]]] = {
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Eq: operator.eq,
}


def evaluate(expression: str, values: Mapping[str, float | None]) -> float:
    """Arithmetic, comparisons, IF(c,a,b) and FILL(m,v) of metric math. Raises ValueError for anything else."""

    def value(node: ast.expr) -> float:
        match node:
            case ast.Constant(value=int() | float() as number):
                return float(number)
            case ast.Name(id=name):
                return values[name] or 0.0
            case ast.BinOp(left=left, op=op, right=right):
                return _BINARY[type(op)](value(left), value(right))
            case ast.Compare(left=left, ops=[op], comparators=[right]):
                return float(_COMPARE[type(op)](value(left), value(right)))
            case ast.Call(func=ast.Name(id="IF"), args=[condition, then, other]):
                return value(then) if value(condition) else value(other)
            case ast.Call(func=ast.Name(id="FILL"), args=[ast.Name(id=name), filler]):
                held = values[name]
                return value(filler) if held is None else held
        raise ValueError(f"metric math not known here: {ast.unparse(node)}")

    return value(ast.parse(expression.replace("^", "**"), mode="eval").body)


def evaluate_metrics(queries: Iterable[Mapping[str, Any]], values: Mapping[str, float | None]) -> float:
    """The expression whose data an alarm reads. `values`: its metrics. The other expressions refer only to metrics and
    to those listed before them.
    """
    known, shown = dict(values), ""
    for query in queries:
        if "Expression" in query and query.get("ReturnData", True) not in (False, "false"):
            shown = str(query["Expression"])
        elif "Expression" in query:
            known[str(query["Id"])] = evaluate(str(query["Expression"]), known)
    return evaluate(shown, known)


class Alarms:
    """`active` returns those of the given alarms that are in ALARM."""

    def __init__(self, backend: Backend, *, minute_s: float) -> None:
        self._backend = backend
        self._minute_s = minute_s

    async def active(self, region: str, names: list[str]) -> list[str]:
        if not names:
            return []
        client = self._backend.client("cloudwatch", region)
        math = await self._of_math(region)
        active = [name for name in names if name in math and await self._math_alarm(region, math[name])]
        if plain := [name for name in names if name not in math]:
            found = await self._backend.aws(lambda: client.describe_alarms(AlarmNames=plain, StateValue="ALARM"))
            active += [str(one["AlarmName"]) for one in found["MetricAlarms"]]
        return active

    async def _of_math(self, region: str) -> dict[str, dict[str, Any]]:
        found = await self._backend.stand_ins(region, "AWS::CloudWatch::Alarm")
        return {str(alarm.get("AlarmName") or path.replace("/", "-")): alarm for path, alarm in found}

    async def settle(self, region: str) -> None:
        """Sets each metric-math alarm in the emulator's CloudWatch to its present state."""
        client = self._backend.client("cloudwatch", region)
        for name, alarm in (await self._of_math(region)).items():
            state = "ALARM" if await self._math_alarm(region, alarm) else "OK"
            found = await self._backend.aws(functools.partial(client.describe_alarms, AlarmNames=[name]))
            if not found["MetricAlarms"]:
                await self._backend.aws(functools.partial(client.put_metric_alarm, AlarmName=name, **_EVALUATED_HERE))
            set_state = functools.partial(client.set_alarm_state, AlarmName=name, StateValue=state, StateReason="math")
            await self._backend.aws(set_state)

    async def _math_alarm(self, region: str, alarm: Mapping[str, Any]) -> bool:
        values: dict[str, float | None] = {}
        for query in alarm["Metrics"]:
            if "Expression" not in query:
                values[str(query["Id"])] = await self._value(
                    region, query["MetricStat"], int(alarm.get("EvaluationPeriods", 1))
                )
        compare = _COMPARISONS[str(alarm["ComparisonOperator"])]
        return compare(evaluate_metrics(alarm["Metrics"], values), float(alarm["Threshold"]))

    async def _value(self, region: str, stat: Mapping[str, Any], periods: int) -> float | None:
        """The sum over the window, or the highest second of a percentile; None without a data point."""
        metric = stat["Metric"]
        window_s = max(float(stat["Period"]) / 60 * self._minute_s * periods, SHORTEST_WINDOW_S)
        now = datetime.now(UTC)
        client = self._backend.client("cloudwatch", region)
        name = str(stat["Stat"])
        of: dict[str, Any] = {"ExtendedStatistics": [name]} if name.startswith("p") else {"Statistics": [name]}
        found = await self._backend.aws(
            lambda: client.get_metric_statistics(
                Namespace=metric["Namespace"],
                MetricName=metric["MetricName"],
                Dimensions=[{"Name": one["Name"], "Value": str(one["Value"])} for one in metric.get("Dimensions", [])],
                StartTime=now - timedelta(seconds=window_s),
                EndTime=now + timedelta(seconds=60),
                Period=1,
                **of,
            )
        )
        if name.startswith("p"):
            return max((float(point["ExtendedStatistics"][name]) for point in found["Datapoints"]), default=None)
        points = [float(point[name]) for point in found["Datapoints"]]
        return sum(points) if points else None
