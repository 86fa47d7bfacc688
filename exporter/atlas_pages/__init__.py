"""The atlas: static pages that show what each unit and sub-unit follows, made of the catalogue that ``exporter.atlas`` fills."""
