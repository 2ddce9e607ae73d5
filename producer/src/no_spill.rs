//! What stands for the spill in a build without the feature `spill`: there is none.

use crate::delivery::{Delivery, InFlight};
use crate::error::DeliveryFailure;
use crate::sender::{Encoded, Sender};

#[derive(Debug)]
pub(crate) enum Spill {}

#[derive(Debug)]
pub(crate) enum Drain {}

impl Drain {
    pub(crate) fn acked(&self, _: Delivery) {
        match *self {}
    }

    pub(crate) fn refused(&self) {
        match *self {}
    }

    pub(crate) fn failed(&self, _: DeliveryFailure) {
        match *self {}
    }
}

impl Sender {
    pub(crate) fn is_spilling(&self) -> bool {
        false
    }

    pub(crate) fn spill_event(&mut self, _: Box<InFlight>, _: &Encoded<'_>) {}

    pub(crate) fn tend(&mut self) {}

    pub(crate) fn is_drained(&self) -> bool {
        true
    }

    pub(crate) fn spill_the_rest(&mut self) {}
}
