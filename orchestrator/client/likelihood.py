"""Log-likelihoods of choices, from the echo of the prompt followed by each choice.

    text           Question: …\\nAnswer: light-year.
    text_offset    0        9      …   ^     ^        tokens from here on are the choice's
    token_logprobs null    -2.1    …  -3.2  -0.4      -3.6 is its log-likelihood

As in lm-evaluation-harness: white space at the prompt's end counts to the choice; log-likelihoods
are divided by the characters of the choice without the space that sets it off. A token that begins
in the prompt and ends in the choice is the choice's.
"""

from __future__ import annotations

from itertools import pairwise

from pydantic import ValidationError

from orchestrator.client.sse import AnswerError
from orchestrator.contracts.openai import Completion, Logprobs
from orchestrator.errors import first_fault
from orchestrator.prompts.prompt import ChoicePrompt
from orchestrator.results.schema import Choice

MAX_BYTES = 256 << 20  # of an answer: 64 choices of long prompts, a line of JSON a token


def texts(prompt: ChoicePrompt) -> list[str]:
    """Return the texts to score: the prompt followed by each choice."""
    return [prompt.prompt + choice for choice in prompt.choices]


def read(data: bytes, prompt: ChoicePrompt) -> tuple[list[Choice], Completion]:
    """Return each choice's log-likelihood, and the answer, from its bytes.

    Raises:
        AnswerError: the answer does not have one for each choice.
    """
    try:
        answer = Completion.model_validate_json(data)
    except ValidationError as error:
        raise AnswerError(f"unexpected data in the answer: {first_fault(error)}") from None
    echoes = {echo.index: echo for echo in answer.choices}
    if sorted(echoes) != list(range(len(prompt.choices))) or len(echoes) != len(answer.choices):
        raise AnswerError(f"{len(prompt.choices)} choices were requested, others were returned")
    choices = []
    for at, text in enumerate(prompt.texts):
        logprobs = echoes[at].logprobs
        if echoes[at].text != text:
            raise AnswerError(f"choice {at}: the base station's echo differs from the request")
        if logprobs is None:
            raise AnswerError(f"choice {at}: has no logprobs")
        choices.append(of_choice(prompt, at, logprobs))
    return choices, answer


def of_choice(prompt: ChoicePrompt, at: int, echo: Logprobs) -> Choice:
    """Return one choice's log-likelihood, from those of the tokens of its text.

    Raises:
        AnswerError: the tokens do not fit the text.
    """
    border, end = len(prompt.prompt.rstrip()), len(prompt.prompt + prompt.choices[at])
    logprobs = _behind(echo, border, end)
    return Choice(
        log_likelihood=sum(logprobs),
        tokens=len(logprobs),
        characters=len(prompt.choices[at].removeprefix(" ")),
    )


def _behind(echo: Logprobs, border: int, end: int) -> list[float]:
    """Return log-probabilities of the tokens that reach beyond the first `border` characters."""
    offsets = echo.text_offset
    if not len(echo.tokens) == len(echo.token_logprobs) == len(offsets):
        raise AnswerError("tokens, token_logprobs and text_offset differ in length")
    if any(left > right for left, right in pairwise([0, *offsets, end])):
        raise AnswerError("text_offset does not rise within the text")
    found = []
    for begins, follows, token, logprob in zip(
        offsets, [*offsets[1:], end], echo.tokens, echo.token_logprobs, strict=True
    ):
        # A tokenizer may leave out a space between tokens: what follows may begin behind the end.
        ends = min(follows, begins + len(token))
        if begins >= border or ends > border:
            found.append(logprob)
    known = [logprob for logprob in found if logprob is not None]
    if not found or len(known) != len(found):
        raise AnswerError("a choice has a token without log-probability")
    return known
