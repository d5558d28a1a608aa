"""The dashboards, as a program: `python -m services.grafana` writes `dashboards/*.json` anew.

overview.py, devices.py, policy.py, emulation.py    what is on each
panels.py       a panel of each kind, with what all of its kind have in common
board.py        a dashboard: its rows on the grid, links, annotations, variables
trust.py        panels that are on two of them
parts.py        the colours of the parts of a request's time
catalogue.py    all dashboards, as JSON
"""
