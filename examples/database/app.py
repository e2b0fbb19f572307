"""Asks the database over its own protocol whether it is there. A real service brings a driver and reads SECRET_ARN."""

import json
import os
import socket
import struct

SSL_REQUEST = struct.pack("!ii", 8, 80877103)
"""PostgreSQL, "Message Formats": the server answers with one byte, S if it encrypts."""


def handler(event, context):
    address = os.environ["DATABASE_HOST"], int(os.environ["DATABASE_PORT"])
    try:
        with socket.create_connection(address, timeout=3) as connection:
            connection.sendall(SSL_REQUEST)
            encrypts = connection.recv(1) == b"S"
    except OSError as error:
        return {"statusCode": 503, "body": json.dumps({"database": "unreachable", "error": str(error)})}
    return {"statusCode": 200, "body": json.dumps({"database": "reachable", "encrypts": encrypts})}
