"""What shows a network: pictures, tables of variables, plots."""
