"""The media pipeline's part of the Dagster definitions."""

import dagster as dg

definitions = dg.Definitions()
