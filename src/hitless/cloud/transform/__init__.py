"""The release layer's pure part: what `osls package` compiled → the two templates of a release, expand and contract.

`desired` says what a release wants to be, whatever is live. `steps` merges that with what is live, so that nothing that
serves is replaced, removed or pointed elsewhere before its successor stands. Nothing here calls anything.
"""

from hitless.cloud.transform.desired import desired
from hitless.cloud.transform.model import Code, LiveState, ReleaseInput, Template
from hitless.cloud.transform.updates import clear, contract, expand

__all__ = ["Code", "LiveState", "ReleaseInput", "Template", "clear", "contract", "desired", "expand"]
