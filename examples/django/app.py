"""A greeting by Django, its settings and routes in one file."""

from __future__ import annotations

import json
import os

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path
from django.views.decorators.http import require_GET, require_POST
from mangum import Mangum

settings.configure(
    SECRET_KEY=os.environ["DJANGO_SECRET_KEY"],
    ALLOWED_HOSTS=["*"],  # the gateway in front of it accepts only the hosts that it serves
    ROOT_URLCONF=__name__,
)


@require_GET
def greeting(request: HttpRequest, name: str) -> JsonResponse:
    return JsonResponse({"greeting": f"Hello, {name}", "times": int(request.GET.get("times", 1))})


@require_POST
def total(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"total": sum(json.loads(request.body)["numbers"])}, status=201)


def not_found(request: HttpRequest, exception: Exception) -> JsonResponse:
    return JsonResponse({"error": "Not Found"}, status=404)


urlpatterns = [path("greetings/<str:name>", greeting), path("sums", total)]
handler404 = not_found
handler = Mangum(get_asgi_application(), lifespan="off")
