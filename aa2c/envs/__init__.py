"""Environments: Gymnasium's and ale_py's, behind one interface. The only room that names either."""
