CONSTANT = 1


def handler(event, context):
    return "works"
