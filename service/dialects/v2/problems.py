"""Errors as the protocol tells of them: `{"error": text}`, and 400 for whatever is wrong with a request."""

from typing import Final

from service.api.answer import Answer
from service.dialects.problems import described, json_answer, status_of
from service.errors import ServiceError

_STATUS: Final = {406: 400, 409: 400, 415: 400, 422: 400, 507: 500}
"""The specification has 400 for errors of the client; an unknown model is 404, as in KServe."""


def problem(error: ServiceError) -> Answer:
    """The answer to an error."""
    return json_answer({"error": described(error)}, status_of(error, _STATUS), error)
