"""`python -m orchestrator`: the command `collegium`, where its script is not on the PATH, as in a submitted job."""

from .jobs.arrival import check_arrival

if __name__ == "__main__":
    check_arrival()
    from .cli.main import main

    main()
