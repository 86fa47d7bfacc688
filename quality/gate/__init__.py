"""The decision: may this artefact be served?"""
