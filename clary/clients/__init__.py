"""How an unmodified AWS client on this machine is pointed at Clary."""
