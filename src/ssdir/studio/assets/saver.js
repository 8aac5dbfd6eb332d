// `props.value`: {name, source, number}: a file to hand over; a new number saves again.
watch('value', () => {
  const { name, source } = props.value || {};
  if (!source) return;
  const link = document.createElement('a');
  link.href = source;
  link.download = name;
  link.click();
});
