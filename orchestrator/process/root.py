"""The folder that the code runs from: a checkout, or /app in a container."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
