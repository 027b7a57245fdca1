//! librte_net_kopi.so, the poll-mode driver that applications load.
