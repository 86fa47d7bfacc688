"""The front end on Starlette and uvicorn."""
