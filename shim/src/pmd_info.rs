//! What `dpdk-pmdinfo.py` reads out of a driver's file: its name and its arguments.

#[used]
static INFO: [u8; 120] = *b"PMD_INFO_STRING= {\"name\": \"net_kopi\", \"params\": \"socket=<path> name=<name> queues=<1-16> mac=<address>\", \"pci_ids\": []}\0";
