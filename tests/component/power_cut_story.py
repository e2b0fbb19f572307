"""What test_power_cut.py records: `python -m tests.component.power_cut_story FOLDER ACKNOWLEDGED`.

A build, pushes, a deploy and a promotion over real git, a real state file, real secrets and a real store of artifacts.
Each line of ACKNOWLEDGED is what a person had been told by then.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from hitless.artifact.build import build
from hitless.artifact.store import ArtifactStore
from hitless.store.secrets import SecretKey
from tests.component.artifact_support import HERE, FakeInstaller, a_service
from tests.component.pipeline_bench import PipelineBench, promote, tell_story
from tests.fakes import release_document


def main() -> None:
    folder, acknowledged = Path(sys.argv[1]), os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def tell(**what: Any) -> None:
        os.write(acknowledged, json.dumps(what).encode() + b"\n")

    async def shipped(bench: PipelineBench, run: int, commit: str) -> None:
        ended = await bench.end_of(run)
        assert ended["state"] == "succeeded"
        stage = ended["stage"]
        live = bench.store.live(stage)
        assert live
        tell(stage=stage, release=live[0], run=run, commit=commit)

    async def story(bench: PipelineBench) -> None:
        bench.engine.secrets.set("dev", "TOKEN", "one", SecretKey(folder / "secrets.key"), "2026-11-24T06:00:00Z")
        tell(secret="TOKEN")
        first = bench.commit("1")
        await shipped(bench, await bench.push(), first)
        await shipped(bench, (await promote(bench, "dev", "staging")).run, first)
        artifacts = ArtifactStore(folder / "artifacts")
        service = a_service(folder.parent / "service", requirements="dep==1.0\n")
        built = build(service, artifacts, say=lambda _: None, installer=FakeInstaller(), host=HERE).by_function["api"]
        document = release_document(digest=built.digest)
        started = await bench.engine.deploy("dev", document, strategy=None, force=False)
        async for line in bench.engine.follow(started):
            if "result" in line:
                tell(stage="dev", release=line["result"]["release"], digest=built.digest)
        second = bench.commit("2")
        await shipped(bench, await bench.push(), second)

    tell_story(folder, story)


if __name__ == "__main__":
    main()
