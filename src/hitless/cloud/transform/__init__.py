"""The templates of a release, pure: from what `osls package` compiled and what is live.

`desired` makes the template that a release wants, independent of what is live. `updates` merges it with what is live,
so that nothing that serves is replaced, removed or moved before its successor exists.
"""

from hitless.cloud.transform.desired import desired
from hitless.cloud.transform.model import Code, LiveState, ReleaseInput, Template
from hitless.cloud.transform.updates import clear, contract, expand

__all__ = ["Code", "LiveState", "ReleaseInput", "Template", "clear", "contract", "desired", "expand"]
