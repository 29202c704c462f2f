"""One row of a data file: which form it has, whether it is a right one, and what it is to training. No torch here.

    text        {"text": "..."}
    chat        {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}
    preference  {"prompt": text | messages, "chosen": text | messages, "rejected": text | messages}
    prompts     {"prompt_id": "...", "prompt": text | messages, "category"?: "...", "reference"?: "..."}

A row may have other fields beside these. Where chosen and rejected are messages that repeat the prompt, their
common beginning is the prompt.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from training.config import STAGES, TrainingConfig
from training.data.examples import Example, Flaw, Message, Pair, SetPrompt, Source, pair_flaw
from training.data.lines import RowError
from training.data.normal import content_id
from training.data.shapes import advice

Kind = Literal["text", "chat", "preference", "prompts"]

MOST_ANSWER = 1_000_000  # characters of one answer to a prompt

ROLES = frozenset({"system", "user", "assistant", "tool"})
MOST_NAME = 200  # characters of a prompt's id, of a category, a model's or a judge's name
NOUNS: dict[Kind, str] = {"chat": "chats", "text": "texts", "preference": "preferences", "prompts": "prompts"}
FORMS: dict[Kind, str] = {
    "text": '{"text": "..."}',
    "chat": '{"messages": [...]}',
    "preference": '{"prompt": ..., "chosen": ..., "rejected": ...}',
    "prompts": '{"prompt_id": "...", "prompt": ...}',
}


@dataclass(frozen=True, slots=True)
class Row:
    """A checked row: its kind, and its content as lists of messages and texts, for counting."""

    kind: Kind
    chats: tuple[list[Message], ...] = ()
    texts: tuple[str, ...] = ()
    flaw: Flaw | None = None  # of a preference


def as_example(row: dict[str, Any]) -> Example:
    """A chat's or a text's row as an example. Raises RowError, also for rows of other kinds."""
    checked = check_row(row)
    if checked.kind == "chat":
        return Example(messages=_plain(checked.chats[0]))
    if checked.kind == "text":
        return Example(text=checked.texts[0])
    raise RowError(*wrong_kind("the row is one of the", checked.kind, "sft"))


def as_pair(row: dict[str, Any]) -> Pair:
    """A preference's row as a pair, which may have a flaw. Raises RowError, also for rows of other kinds."""
    checked = check_row(row)
    if checked.kind != "preference":
        raise RowError(*wrong_kind("the row is one of the", checked.kind, "dpo"))
    return Pair(*map(_plain, checked.chats))


def as_prompt(row: dict[str, Any]) -> SetPrompt:
    """A prompt's row as it stands; of a preference its prompt, of a chat what comes before the first answer.

    Where there is none (a chat that begins with an answer, a pair with the flaw "prompts differ") it has no messages.
    Raises RowError, also for texts.
    """
    checked = check_row(row)
    if checked.kind == "text":
        raise RowError(*wrong_kind("the row is one of the", checked.kind, "respond"))
    messages = _plain(checked.chats[0])
    if checked.kind == "prompts":
        category = checked_name(row["category"], "category") if row.get("category") else None
        return SetPrompt(_prompt_id(row), messages, category, row.get("reference"))
    if checked.kind == "chat":
        messages = messages[: [message["role"] for message in messages].index("assistant")]
    elif checked.flaw == "prompts differ":
        messages = []
    if not any(message["role"] == "user" and message["content"].strip() for message in messages):
        messages = []
    return SetPrompt(content_id(messages), messages)


def as_source(row: dict[str, Any]) -> Source:
    """A row that prompts are drawn from: its prompt as `as_prompt` has it, and all that it says. Raises RowError."""
    prompt = as_prompt(row)
    if "chosen" in row and "rejected" in row:
        return Source("preference", prompt, as_pair(row))
    if "messages" in row:
        return Source("chat", prompt, as_example(row))
    return Source("prompts", prompt, Example(messages=prompt.messages))


def _plain(messages: list[Message]) -> list[Message]:
    return [Message(role=message["role"], content=message["content"]) for message in messages]


def wrong_kind(subject: str, kind: Kind, stage: str) -> tuple[str, str]:
    """What to say where a stage cannot train on this kind: a sentence that begins with its subject, and a hint."""
    takes = [each for each in NOUNS if each in STAGES[stage].takes]
    verb = "trains on" if issubclass(STAGES[stage], TrainingConfig) else "takes prompts from"
    return (
        f"{subject} {NOUNS[kind]}; this stage {verb} {' or '.join(NOUNS[each] for each in takes)}.",
        f"Choose a data set of {' or '.join(FORMS[each] for each in takes)} rows.",
    )


def check_row(row: dict[str, Any]) -> Row:
    """Say which kind a row is, and check that it is a right one. Raises RowError."""
    if "chosen" in row and "rejected" in row:
        return _check_preference(row)
    if "messages" in row:
        messages = _check_messages(row["messages"], "messages")
        _check_answer(messages)
        return Row("chat", chats=(messages,))
    if "text" in row and "prompt" not in row:
        return Row("text", texts=(_check_text(row["text"], "text"),))
    if "prompt" in row and "prompt_id" in row and "response" not in row:
        return _check_prompt(row)
    raise advice(row)


def _check_text(text: Any, name: str) -> str:
    if type(text) is not str:
        way = "Join its parts into one text." if type(text) is list else "Write a text in quotes, or leave the row out."
        raise RowError(f"“{name}” is {_type_name(text)}, not a text.", way)
    if "\0" in text:
        raise RowError(f"“{name}” holds a NUL character (\\u0000), which is no text.", "Leave the character out.")
    return text


def _check_messages(messages: Any, name: str) -> list[Message]:
    if type(messages) is not list:
        raise RowError(
            f"“{name}” is {_type_name(messages)}, not a list of messages.",
            'Write [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}].',
        )
    if not messages:
        raise RowError(f"“{name}” is an empty list.", "A chat has a user's and an assistant's message at least.")
    for index, message in enumerate(messages):
        if type(message) is not dict:
            raise RowError(
                f"“{name}”[{index}] is {_type_name(message)}, not an object.", "A message has a role and a content."
            )
        role = message.get("role")
        if type(role) is not str or role not in ROLES:
            raise _wrong_role(message, f"“{name}”[{index}]")
        content = message.get("content")
        if type(content) is not str or "\0" in content:
            _check_text(content, f"{name}[{index}].content")
        if len(message) > 2 and message.get("tool_calls"):
            raise RowError(f"“{name}”[{index}] calls tools, which cannot be trained on yet.", "Leave the row out.")
    return messages


def _wrong_role(message: dict[str, Any], place: str) -> RowError:
    known = "The roles are system, user, assistant and tool."
    if "role" not in message and "from" in message:
        return RowError(f"{place} has “from” and “value” for “role” and “content”.", known)
    if "role" not in message:
        return RowError(f"{place} has no role.", known)
    role = message["role"]
    if not isinstance(role, str):
        return RowError(f"the role of {place} is {_type_name(role)}, not a text.", known)
    meant = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant", "ai": "assistant"}
    right = meant.get(role.lower(), role.lower() if role.lower() in ROLES else "")
    return RowError(f"the role of {place} is “{role[:30]}”.", f"{known} Write “{right}”." if right else known)


def _check_answer(messages: list[Message]) -> None:
    """There is an assistant's turn with a word in it: something to learn."""
    answers = [message["content"] for message in messages if message["role"] == "assistant"]
    if not answers:
        raise RowError(
            "the row has no assistant turn, so there is nothing to learn.", "Add the answer, or leave the row out."
        )
    if not any(answer and not answer.isspace() for answer in answers):
        raise RowError("the row has only empty assistant turns.", "Add the answer, or leave the row out.")


def _check_preference(row: dict[str, Any]) -> Row:
    pair = split_preference(row)
    return Row("preference", chats=(pair.prompt, pair.chosen, pair.rejected), flaw=pair_flaw(pair))


def split_preference(row: dict[str, Any]) -> Pair:
    """A preference row's prompt and answers, their messages as they stand in the row.

    Answers that repeat the prompt lose it. Those that begin otherwise than each other, or than the prompt given,
    stay whole: their flaw is "prompts differ". Raises RowError where there is no prompt, or an answer has no
    assistant turn at its end.
    """
    given = row.get("prompt")
    prompt = [] if given is None else _as_messages(given, "prompt", "user")
    chosen, rejected = (_as_messages(row[side], side, "assistant") for side in ("chosen", "rejected"))
    for side, answer in (("chosen", chosen), ("rejected", rejected)):
        if answer[-1]["role"] != "assistant":
            raise RowError(
                f"“{side}” does not answer the prompt: its last turn is not the assistant's.", "Correct the roles."
            )
    common = _common_beginning(chosen, rejected)
    if common and common[0]["role"] != "assistant" and _begins_with(common, prompt):
        prompt, chosen, rejected = common, chosen[len(common) :], rejected[len(common) :]
    if not prompt and "assistant" in (chosen[0]["role"], rejected[0]["role"]):
        raise RowError(
            "the row has no prompt: neither the field, nor a common beginning of chosen and rejected.",
            'Add "prompt", or begin both answers with the same messages.',
        )
    return Pair(prompt, chosen, rejected)


def _begins_with(common: list[Message], prompt: list[Message]) -> bool:
    """Whether both answers begin with the prompt given.

    A prompt of one turn may stand anywhere in it: data sets give a chat's first question, or its last, and leave the
    system prompt out.
    """
    if len(prompt) <= 1:
        return not prompt or any(_same_turn(prompt[0], turn) for turn in common)
    return len(prompt) <= len(common) and all(map(_same_turn, prompt, common))


def _as_messages(value: Any, name: str, role: str) -> list[Message]:
    if type(value) is list:
        return _check_messages(value, name)
    return [Message(role=role, content=_check_text(value, name))]


def _common_beginning(chosen: list[Message], rejected: list[Message]) -> list[Message]:
    """The messages that both begin with; the last message of either is its answer, never a part of the prompt."""
    length, most = 0, min(len(chosen), len(rejected)) - 1
    while length < most and _same_turn(chosen[length], rejected[length]):
        length += 1
    return chosen[:length]


def _same_turn(one: Message, other: Message) -> bool:
    return one["role"] == other["role"] and one["content"].strip() == other["content"].strip()


def _check_prompt(row: dict[str, Any]) -> Row:
    _prompt_id(row)
    for name in ("category", "reference"):
        if row.get(name) is not None:
            _check_text(row[name], name)
    if row.get("category"):
        checked_name(row["category"], "category")
    messages = _as_messages(row["prompt"], "prompt", "user")
    if messages[-1]["role"] == "assistant":
        raise RowError("“prompt” ends with an assistant turn.", "A prompt ends where the model is to answer.")
    if not messages[-1]["content"].strip():
        raise RowError("“prompt” is empty.", "Write the prompt, or leave the row out.")
    return Row("prompts", chats=(messages,))


def _prompt_id(row: dict[str, Any]) -> str:
    value = row["prompt_id"]
    if type(value) not in (str, int):
        raise RowError(f"“prompt_id” is {_type_name(value)}, not a text.", "Give each prompt a short name.")
    return checked_name(_check_text(str(value), "prompt_id"), "prompt_id")


def checked_name(text: str, name: str) -> str:
    """A name that stands in tables, without spaces around it. `name`: of the field. Raises RowError."""
    if len(text) > MOST_NAME:
        raise RowError(f"“{name}” has {len(text):,} characters; {MOST_NAME} are the most.", "Shorten it.")
    text = text.strip()
    if not text:
        raise RowError(f"“{name}” is empty.", "Give it a name.")
    if not text.isprintable():
        raise RowError(f"“{name}” holds a line break or another control character.", "Leave it out.")
    return text


def as_prompt_messages(value: Any) -> list[Message]:
    """A prompt that is a text or messages, as messages. Raises RowError."""
    return _plain(_as_messages(value, "prompt", "user"))


def _type_name(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null or missing"}
    return names.get(type(value), "a number")
