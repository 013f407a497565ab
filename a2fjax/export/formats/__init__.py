"""File formats of graphs; `registry.bundle_formats` holds them.

A package adds one with

    registry.bundle_formats.register("mine", "my_package.format:MyFormat")

where MyFormat extends `a2fjax.export.formats.base.Format`.
"""
