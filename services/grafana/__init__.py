"""The dashboards as code: `python -m services.grafana` writes `dashboards/*.json`.

overview.py, devices.py, policy.py, emulation.py    one dashboard each
panels.py       a function for each kind of panel, with the settings common to its kind
board.py        a dashboard: its rows on the grid, links, annotations, variables
trust.py        panels that are on two dashboards
parts.py        the colours of the parts of a request's time
catalogue.py    all dashboards, as JSON
"""
