from works import no_such_name  # noqa: F401


def handler(event, context):
    return None
