"""``python -m elude.handlers.web BUNDLE`` serves a bundle on uvicorn."""

from elude.handlers.web.run import main

if __name__ == "__main__":
    main()
