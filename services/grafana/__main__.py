"""Write every dashboard's JSON file: `python -m services.grafana`."""

from __future__ import annotations

from services.grafana.catalogue import FOLDER, as_json


def main() -> None:
    """Write the files that Grafana is provisioned with."""
    for name, text in as_json().items():
        (FOLDER / f"{name}.json").write_text(text)


if __name__ == "__main__":
    main()
