// The app that `headwater serve` opens.
// What all parts share comes first, so that a part can differ from it.
import '../theme.css';
import './page.css';
import { mount } from 'svelte';
import App from '../App.svelte';
import { address } from '../address.svelte';

address.follow();
const target = document.getElementById('app');
if (target) mount(App, { target });
