"""The fixtures of replays: a stack that answers as its prompts say."""

from tests.harness.replay_stack import url as url
