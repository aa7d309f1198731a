"""What an operator needs to run the applier as a service: files of the package, printed by `applier deploy`."""
