/* The functions of DPDK that the driver calls, which every application has; `rte_vdev_register` is in the bus, which
 * driver.rs looks for. All are the same from 22.11 to 25.11. */
#ifndef KOPI_FUNCTIONS_H
#define KOPI_FUNCTIONS_H

#include "dpdk.h"

const char *rte_version(void);
unsigned int rte_eal_process_type(void);
void *rte_zmalloc(const char *type, size_t size, unsigned int align);
int rte_lcore_is_enabled(unsigned int lcore);
int rte_log_register_type_and_pick_level(const char *name, uint32_t level);

const char *rte_dev_name(const struct own_rte_device *dev);
const struct own_rte_devargs *rte_dev_devargs(const struct own_rte_device *dev);
int rte_dev_numa_node(const struct own_rte_device *dev);

struct own_rte_eth_dev *rte_eth_dev_allocate(const char *name);
struct own_rte_eth_dev *rte_eth_dev_allocated(const char *name);
struct own_rte_eth_dev *rte_eth_dev_attach_secondary(const char *name);
void rte_eth_dev_probing_finish(struct own_rte_eth_dev *dev);
int rte_eth_dev_release_port(struct own_rte_eth_dev *dev);
int rte_eth_dev_callback_process(struct own_rte_eth_dev *dev, unsigned int event, void *argument);
int rte_eth_dev_stop(uint16_t port);
void rte_eth_random_addr(uint8_t *address);
uint16_t rte_eth_pkt_burst_dummy(void *queue, struct own_rte_mbuf **packets, uint16_t n);

int rte_mbuf_dyn_rx_timestamp_register(int *offset, uint64_t *flag);

typedef int (*own_memseg_walk)(const struct own_rte_memseg_list *list, const struct own_rte_memseg *segment, void *argument);
typedef int (*own_memseg_list_walk)(const struct own_rte_memseg_list *list, void *argument);
typedef unsigned int own_rte_mem_event;
typedef void (*own_mem_event_callback)(own_rte_mem_event event, const void *start, size_t length, void *argument);
int rte_memseg_walk(own_memseg_walk function, void *argument);
int rte_memseg_list_walk(own_memseg_list_walk function, void *argument);
int rte_memseg_get_fd_thread_unsafe(const struct own_rte_memseg *segment);
int rte_memseg_get_fd_offset_thread_unsafe(const struct own_rte_memseg *segment, size_t *offset);
int rte_mem_event_callback_register(const char *name, own_mem_event_callback callback, void *argument);
int rte_mem_event_callback_unregister(const char *name, void *argument);

struct own_rte_intr_handle *rte_intr_instance_alloc(uint32_t flags);
void rte_intr_instance_free(struct own_rte_intr_handle *handle);
int rte_intr_type_set(struct own_rte_intr_handle *handle, unsigned int type);
int rte_intr_efd_counter_size_set(struct own_rte_intr_handle *handle, uint8_t size);
int rte_intr_vec_list_alloc(struct own_rte_intr_handle *handle, const char *name, int size);
void rte_intr_vec_list_free(struct own_rte_intr_handle *handle);
int rte_intr_vec_list_index_set(struct own_rte_intr_handle *handle, int index, int vector);
int rte_intr_efds_index_set(struct own_rte_intr_handle *handle, int index, int fd);
int rte_intr_nb_efd_set(struct own_rte_intr_handle *handle, int count);
void rte_intr_free_epoll_fd(struct own_rte_intr_handle *handle);

#endif
