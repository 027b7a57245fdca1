//! Unmodified applications run through the driver, against a small daemon that does as the test says.

#[cfg(test)]
mod daemon;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod flow;
#[cfg(test)]
mod life;
#[cfg(test)]
mod testpmd;
#[cfg(test)]
mod traffic;
