"""Alarms as CodeDeploy reads them: the emulator's own, and those of metric math, which it does not evaluate.

A metric-math alarm is a stand-in (standins.py). Its expression is evaluated here on the sums of the metrics that the
emulator's CloudWatch holds, over the alarm's window in the front's faster time, never shorter than SHORTEST_WINDOW_S.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from tests.aws.front.backend import Backend

SHORTEST_WINDOW_S: Final = 10.0
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

    return value(ast.parse(expression, mode="eval").body)


class Alarms:
    """`active` names those of the given alarms that are in ALARM."""

    def __init__(self, backend: Backend, *, minute_s: float) -> None:
        self._backend = backend
        self._minute_s = minute_s

    async def active(self, region: str, names: list[str]) -> list[str]:
        if not names:
            return []
        client = self._backend.client("cloudwatch", region)
        found = await self._backend.aws(lambda: client.describe_alarms(AlarmNames=names, StateValue="ALARM"))
        active = [str(one["AlarmName"]) for one in found["MetricAlarms"]]
        for path, alarm in await self._backend.stand_ins(region, "AWS::CloudWatch::Alarm"):
            name = str(alarm.get("AlarmName") or path.replace("/", "-"))
            if name in names and await self._math_alarm(region, alarm):
                active.append(name)
        return active

    async def _math_alarm(self, region: str, alarm: Mapping[str, Any]) -> bool:
        values: dict[str, float | None] = {}
        shown = ""
        for query in alarm["Metrics"]:
            if "Expression" in query:
                if query.get("ReturnData", True) not in (False, "false"):
                    shown = str(query["Expression"])
            else:
                values[str(query["Id"])] = await self._sum(
                    region, query["MetricStat"], int(alarm.get("EvaluationPeriods", 1))
                )
        compare = _COMPARISONS[str(alarm["ComparisonOperator"])]
        return compare(evaluate(shown, values), float(alarm["Threshold"]))

    async def _sum(self, region: str, stat: Mapping[str, Any], periods: int) -> float | None:
        """The sum over the window, None without a data point. Other statistics are not needed here."""
        metric = stat["Metric"]
        window_s = max(float(stat["Period"]) / 60 * self._minute_s * periods, SHORTEST_WINDOW_S)
        now = datetime.now(UTC)
        client = self._backend.client("cloudwatch", region)
        found = await self._backend.aws(
            lambda: client.get_metric_statistics(
                Namespace=metric["Namespace"],
                MetricName=metric["MetricName"],
                Dimensions=[{"Name": one["Name"], "Value": str(one["Value"])} for one in metric.get("Dimensions", [])],
                StartTime=now - timedelta(seconds=window_s),
                EndTime=now + timedelta(seconds=60),
                Period=1,
                Statistics=["Sum"],
            )
        )
        points = [float(point["Sum"]) for point in found["Datapoints"]]
        return sum(points) if points else None
