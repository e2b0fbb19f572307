"""The blocks of commands in README and docs that tests/process/test_docs_blocks.py runs with changes."""

from __future__ import annotations

from tests.aws.docs_blocks import Block

COMMITTED = "git init -qb dev && git add . && git commit -qm First\n"
SSH = """\
printf '%s\\n' '#!/bin/sh' 'for last; do :; done; exec sh -c "$last"' > ../ssh && chmod +x ../ssh
export HITLESS_SSH_COMMAND=$PWD/../ssh
sed -i "s/        branch: prod/        branch: prod\\n        listen: 127.0.0.1:$PORT/" serverless.yml
"""
"""The other machine is this one."""
KEYS = (
    "openssl req -x509 -newkey rsa:2048 -nodes -keyout privkey.pem -out fullchain.pem -subj /CN=shop 2> openssl.txt\n"
)
OWN_URL = "$(hitless status --json | grep -o 'http://[^\"]*' | head -1)"
TWO_SERVICES = """\
hitless down
for name in orders users; do
  hitless init $name
  sed -i "s/      prod:/      prod:\\n        domain: $name.localhost/; s/approval: manual//" $name/serverless.yml
done
"""
RUN = (
    Block("docs/dashboard.md", "hitless dashboard\n", {"dashboard": "dashboard --listen 127.0.0.1:0"}, serves=True),
    Block(
        "docs/dashboard.md",
        "hitless dashboard --listen",
        {"0.0.0.0:9191": "127.0.0.2:0"},
        before=KEYS,
        serves=True,
    ),
    Block(
        "docs/drill.md",
        "hitless drill",
        {
            "--rate 2000 --duration 120 --releases 50": "--rate 50 --duration 5 --releases 2",
            "step:50:3000@10": "step:20:60@2 --duration 4",
            "h2 --scenarios canary,raises-on-route,exits": "h2 --rate 30 --scenarios canary,exits",
            "https://api.example.com --rate 100": f"{OWN_URL} --rate 20 --duration 3",
        },
    ),
    Block(
        "docs/homes.md",
        "export HITLESS_DATA_DIR",
        {"/var/lib/shop": "$PWD/shop/.hitless", ":80": "127.0.0.1:$PORT", ":443": "127.0.0.1:$TLS_PORT"},
        before=TWO_SERVICES,
    ),
    Block(
        "docs/host.md",
        "hitless remote add",
        {"ssh://root@203.0.113.7/clock": "ssh://root@203.0.113.7$PWD/there"},
        before=COMMITTED + SSH,
    ),
    Block(
        "docs/host.md",
        "hitless backup",
        {
            "/var/backups/clock.tar.gz": "../clock.tar.gz",
            "/var/lib/hitless/clock <": "$PWD/../restored/.hitless <",
            "--data-dir /var/lib/hitless/clock": "--data-dir .hitless",
        },
        before=f"{COMMITTED}{SSH}hitless remote add prod ssh://root@203.0.113.7$PWD/there\n"
        "hitless up --detach --stage prod\n",
    ),
    Block(
        "docs/pipeline.md",
        "git remote add",
        {
            "approve 7": "approve 3",
            "show 7": "show 3",
            # A run that has succeeded can be neither retried nor stopped.
            "hitless pipeline retry 7": "! hitless pipeline retry 3",
            "hitless pipeline stop 8": "! hitless pipeline stop 3",
        },
        before=COMMITTED,
    ),
    Block(
        "docs/pipeline.md",
        "git push engine feature/login",
        before=f'{COMMITTED}git remote add engine "$(hitless pipeline url)"\n'
        "git branch feature/login && git branch fix\n",
    ),
    Block(
        "docs/pipeline.md",
        "hitless pipeline receive",
        {"[": "", "]": "", "https://github.com/o/r.git": "../r.git", "9090": "0"},
        before=f"{COMMITTED}git clone -q --bare . ../r.git\necho secret > hook.key; echo token > token\n",
        serves=True,
    ),
    Block(
        "docs/serverless-yml.md",
        "hitless secrets set",
        before="echo postgres:// > url.txt; hitless secrets set /clock/old-key --stage prod < url.txt\n",
    ),
)
